"""lmms-eval's own wrappers on small checkpoints, and what they hand to the processor and to ``generate``."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
import types
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from PIL import Image

from qig.models.tiny import checkpoint_dir

SAMPLING = ("temperature", "top_p", "top_k")


def wrapper_class(path: str):
    """``chat.llava_hf.LlavaHf``; decord reads videos only, and need not be installed."""
    if "decord" not in sys.modules:
        sys.modules["decord"] = types.SimpleNamespace(VideoReader=None, cpu=None, __spec__=None)
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(f"lmms_eval.models.{module}"), name)


def realistic(name: str, folder: Path) -> None:
    """The embedded checkpoint with a processor that resizes and tiles as the published ones do."""
    shutil.copytree(checkpoint_dir(name), folder, dirs_exist_ok=True)
    file = folder / "processor_config.json"
    config = json.loads(file.read_text())
    changes = {
        "tiny_qwen2_vl": {"patch_size": 14, "size": {"shortest_edge": 3136, "longest_edge": 12845056}},
        "tiny_llava_onevision": {"image_grid_pinpoints": [[48 * a, 48 * b] for a in (1, 2, 3) for b in (1, 2, 3)]},
        "tiny_internvl": {"crop_to_patches": True},
    }
    config["image_processor"] |= changes[name]
    file.write_text(json.dumps(config))


def processor_only(family: str, folder: Path) -> None:
    """A folder with a processor of the family's own classes at the published sizes, and a configuration."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint_dir("tiny_qwen2_vl"))
    size, processor, video = {
        "qwen2_5_vl": (14, "Qwen2_5_VLProcessor", "Qwen2VLVideoProcessor"),
        "qwen3_vl": (16, "Qwen3VLProcessor", "Qwen3VLVideoProcessor"),
    }[family]
    pictures = transformers.Qwen2VLImageProcessor(patch_size=size)
    template = (checkpoint_dir("tiny_qwen2_vl") / "chat_template.jinja").read_text()
    videos = getattr(transformers, video)(patch_size=size)
    getattr(transformers, processor)(pictures, tokenizer, videos, chat_template=template).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": family}))


class StandIn(torch.nn.Module):
    """A model that is never run: its ``generate`` is replaced."""

    def __init__(self, family: str) -> None:
        super().__init__()
        self.config = types.SimpleNamespace(model_type=family)
        self.device, self.dtype = torch.device("cpu"), torch.bfloat16


@contextmanager
def stand_in_model(family: str):
    import transformers

    name = {"qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}[family] + "ForConditionalGeneration"
    with patch.object(getattr(transformers, name), "from_pretrained", lambda *_, **__: StandIn(family)):
        yield


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Reproducible colour gradients with noise, which compression does not leave as they are."""
    generator = torch.Generator().manual_seed(width * height)
    pixels = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy()).convert(mode)


class Recorded:
    """What one ``generate`` call was given: prompt texts, tensors, and other arguments that have an effect."""

    def __init__(self, texts, inputs, arguments):
        self.texts = [texts] if isinstance(texts, str) else list(texts)
        self.inputs = inputs
        self.arguments = effective(arguments)


def effective(arguments: dict) -> dict:
    """Without what changes nothing: None, sampling parameters of greedy decoding, and transformers' defaults."""
    # logits_processor: ours looks for values that are no numbers and changes nothing
    kept = {name: value for name, value in arguments.items() if value is not None and name != "logits_processor"}
    if not kept.get("do_sample"):
        kept = {name: value for name, value in kept.items() if name not in SAMPLING}
    if kept.get("use_cache") is True:
        del kept["use_cache"]
    return kept


def record(monkeypatch, lm, processor_type, model, docs, requests, said="answer") -> tuple[list[Recorded], list]:
    """The calls that ``lm`` makes for the requests, and its answers where the model says ``said``."""
    lm.task_dict = {"task": {"test": docs}}
    texts, calls = [], []
    call = processor_type.__call__

    def processor_call(self, *arguments, **options):
        texts.append(options["text"])
        return call(self, *arguments, **options)

    def generate(**arguments):
        names = [name for name, value in arguments.items() if isinstance(value, torch.Tensor)]
        inputs = {name: arguments.pop(name) for name in names}
        calls.append(Recorded(texts[-1], inputs, arguments))
        tokenizer = getattr(lm, "tokenizer", None) or lm.processor.tokenizer
        told = torch.tensor([tokenizer(said, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]])
        return torch.cat([inputs["input_ids"], told.expand(len(inputs["input_ids"]), -1)], dim=1)

    with monkeypatch.context() as patched:
        patched.setattr(processor_type, "__call__", processor_call)
        patched.setattr(model, "generate", generate, raising=False)
        answers = lm.generate_until(requests)
    return calls, [getattr(answer, "text", answer) for answer in answers]


def request(kind: str, index: int, doc: dict, options: dict):
    """As lmms-eval builds it for a chat or a simple model, from a document with pictures and a question."""
    from lmms_eval.api.instance import Instance

    if kind == "simple":
        arguments = (doc["question"], dict(options), lambda doc: doc["pictures"], index, "task", "test")
    else:
        arguments = (doc["question"], messages, dict(options), index, "task", "test")
    metadata = {"task": "task", "doc_id": index, "repeats": 1}
    return Instance("generate_until", arguments=arguments, idx=0, metadata=metadata)


def messages(doc: dict) -> list[dict]:
    """Pictures before the text, or between its parts where the document says so by ``|``."""
    parts = doc["question"].split("|")
    content = []
    for index, image in enumerate(doc["pictures"]):
        if index < len(parts) - 1:
            content.append({"type": "text", "text": parts[index]})
        content.append({"type": "image", "url": image})
    return [{"role": "user", "content": [*content, {"type": "text", "text": parts[-1]}]}]
