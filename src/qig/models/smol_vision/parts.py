"""What was trained, as files: tower and projector, and the LoRA as PEFT writes it; the whole model is made of them."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peft import PeftModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import InternVLForConditionalGeneration

from qig.errors import ModelError
from qig.models.smol_vision import HUB_NAME
from qig.models.smol_vision.build import build_model, build_processor

SIGHT, ADAPTER = "sight.safetensors", "adapter"


def _sight(model: InternVLForConditionalGeneration) -> nn.ModuleDict:
    inner = model.model
    return nn.ModuleDict({"vision_tower": inner.vision_tower, "multi_modal_projector": inner.multi_modal_projector})


def save(model: InternVLForConditionalGeneration, folder: Path, seen: bool) -> None:
    """Tower and projector in float16 if they were trained, and the adapter if there is one by now.

    They replace what the folder holds once they are written: a training that is killed leaves what it had saved before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as scratch:
        new = Path(scratch)
        if seen:
            values = {name: value.half().contiguous() for name, value in _sight(model).state_dict().items()}
            save_file(values, new / SIGHT)
        language = model.model.language_model
        if isinstance(language, PeftModel):
            _save_adapter(language, new / ADAPTER)
        for file in [file for file in new.rglob("*") if file.is_file()]:
            target = folder / file.relative_to(new)
            target.parent.mkdir(exist_ok=True)
            file.replace(target)


def _save_adapter(language: PeftModel, folder: Path) -> None:
    """As PEFT writes it, but in float16, with the base's public name, and without a model card."""
    language.peft_config["default"].base_model_name_or_path = HUB_NAME
    language.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    weights = folder / SAFETENSORS_WEIGHTS_NAME
    save_file({name: value.half() for name, value in load_file(weights).items()}, weights)


def load(model: InternVLForConditionalGeneration, folder: Path, trainable: bool = False) -> None:
    """Put saved parts into an untrained model, in place; the adapter stands beside the base's weights.

    Raises:
        ModelError: the folder holds none.
    """
    if not (folder / SIGHT).is_file() and not (folder / ADAPTER).is_dir():
        raise ModelError(f"{folder} holds neither {SIGHT} nor {ADAPTER}: expected the folder of an earlier training")
    if (folder / SIGHT).is_file():
        _sight(model).load_state_dict(load_file(folder / SIGHT))
    if (folder / ADAPTER).is_dir():
        inner = model.model
        inner.language_model = PeftModel.from_pretrained(
            inner.language_model, folder / ADAPTER, is_trainable=trainable
        )


def assemble(base: Path, folder: Path, target: Path) -> None:
    """Write the whole model into ``target``, adapter merged, in float16, with its processor."""
    processor = build_processor(base)
    model = build_model(base, processor.tokenizer)
    load(model, folder)
    inner = model.model
    if isinstance(inner.language_model, PeftModel):
        inner.language_model = inner.language_model.merge_and_unload()
    model.tie_weights()
    model.to(torch.float16).save_pretrained(target)
    processor.save_pretrained(target)
