"""From a published directory to a native one: the same logits, the same dtype, bounded memory, nothing executed."""

from __future__ import annotations

import json
import sys
import weakref

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForImageTextToText

from families import internvl2
from models.internvl2.conftest import converted_into
from oracles import internvl2 as oracle
from qig.config.schema import Model, Outliers
from qig.data.tokens import TokenKind
from qig.evaluation.generation import generation_arguments
from qig.evaluation.protocols import protocol_of
from qig.models.internvl2 import convert, is_original, shards
from qig.models.loading import load


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width + height).integers(0, 256, (height, width, 3), dtype=np.uint8))


def inputs_of(processor, *images: Image.Image) -> dict:
    content = [{"type": "image", "image": image} for image in images]
    conversation = [{"role": "user", "content": [*content, {"type": "text", "text": "Describe the image in detail."}]}]
    return processor.apply_chat_template(
        conversation, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )


@torch.no_grad()
def assert_same_logits(case, *images: Image.Image) -> None:
    inputs = inputs_of(case.processor(), *images)
    model = case.model()
    tiles = inputs.get("pixel_values")
    found = model(**{k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}).logits[0]
    ids = inputs["input_ids"][0].tolist()
    expected = oracle.logits(case.tensors, case.settings, ids, model.config.image_token_id, tiles)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sizes", [[(16, 16)], [(50, 16)], [(20, 47), (33, 30)], []], ids=str)
def test_logits_of_images_and_text(both, sizes):
    assert_same_logits(both, *(picture(*size) for size in sizes))


def test_logits_with_the_large_vision_tower(published):
    assert_same_logits(published("internlm2", "6b"), picture(50, 16))


def test_tied_output_layer(tmp_path):
    case = converted_into(tmp_path, text="qwen2", llm_config={"tie_word_embeddings": True})
    model = case.model()
    assert model.lm_head.weight.data_ptr() == model.model.language_model.embed_tokens.weight.data_ptr()
    assert_same_logits(case, picture(16, 16))


def test_an_output_layer_in_the_checkpoint_is_used(published):
    model = published("qwen2").model()
    assert not torch.equal(model.lm_head.weight, model.model.language_model.embed_tokens.weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dtype_is_kept_bit_for_bit(tmp_path, dtype):
    case = converted_into(tmp_path, dtype=dtype)
    with safe_open(case.native / "model.safetensors", framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {dtype}  # noqa: SIM118
        gate = file.get_tensor("language_model.model.layers.1.mlp.gate_proj.weight")
    assert torch.equal(gate, case.tensors["language_model.model.layers.1.feed_forward.w1.weight"])


def test_names_are_those_that_transformers_writes(both, tmp_path):
    model, report = AutoModelForImageTextToText.from_pretrained(both.native, output_loading_info=True)
    assert not any(report.values()), report
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        saved = set(file.keys())
    with safe_open(both.native / "model.safetensors", framework="pt") as file:
        assert set(file.keys()) == saved


def test_published_code_is_never_followed(both):
    assert is_original(both.original) and not is_original(both.native)
    assert not any("internvl_chat" in module or "internlm2" in module for module in sys.modules if "qig" not in module)
    for file in both.native.glob("*.json"):
        assert "auto_map" not in file.read_text()
    assert not list(both.native.glob("*.py"))
    config = AutoConfig.from_pretrained(both.native)
    assert config.model_type == "internvl"
    assert config.text_config.model_type == ("llama" if both.settings["template"] == "internlm2-chat" else "qwen2")


def test_the_project_goes_on_from_it_as_from_any_checkpoint(both, digit_samples, batches_of):
    loaded = load(Model("x", str(both.native), "float32", Outliers(0.0, 0)), torch.device("cpu"))
    assert len(loaded.blocks) == 2
    batches = batches_of(loaded, digit_samples[:2], 4000)
    for batch in batches:
        tiles = oracle.tile_count(*digit_samples[0].images[0].size, 1, 12, 16)
        assert ((batch.kinds == TokenKind.VISION).sum(1) == 4 * tiles).all()
        assert (batch.kinds == TokenKind.ANSWER).any(1).all()


def test_generation_ends_with_the_turn(both):
    processor, config = both.processor(), json.loads((both.native / "generation_config.json").read_text())
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end in config["eos_token_id"] and config["do_sample"] is False
    if both.settings["template"] == "internlm2-chat":
        assert processor.tokenizer.convert_tokens_to_ids("</s>") in config["eos_token_id"]
    for name in ("wrapper", "corrected"):  # as the published chat() does
        protocol = protocol_of(name, "internvl")
        assert generation_arguments(processor.tokenizer, {}, protocol)["eos_token_id"] == end


def test_importing_the_package_needs_no_torch():
    import subprocess

    code = "import sys, qig.models.internvl2; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0


def test_memory_is_one_shard_and_one_tensor(tmp_path, monkeypatch):
    """Counted in bytes of published tensors that are alive whenever another one is read."""
    _, tensors = internvl2.write(tmp_path / "original", llm_config={"num_hidden_layers": 12})
    largest = max(tensor.nbytes for tensor in tensors.values())
    bound = 2 * largest
    assert sum(tensor.nbytes for tensor in tensors.values()) > 3 * bound
    monkeypatch.setattr(shards, "SHARD_BYTES", bound)
    alive, peaks, reads = [], [], []
    read = shards.Reader.read

    def counted(reader, name):
        peaks.append(sum(size for reference, size in alive if reference() is not None))
        tensor = read(reader, name)
        alive.append((weakref.ref(tensor), tensor.nbytes))
        reads.append(name)
        return tensor

    monkeypatch.setattr(shards.Reader, "read", counted)
    kept = []
    save = shards.save_file

    def weighed(shard, path, metadata):
        kept.append(sum(tensor.untyped_storage().nbytes() for tensor in shard.values()))
        save(shard, path, metadata=metadata)

    monkeypatch.setattr(shards, "save_file", weighed)
    (tmp_path / "native").mkdir()
    convert(tmp_path / "original", tmp_path / "native")
    assert set(reads) == set(tensors)
    assert max(peaks) == 0  # a tensor is let go before the next is read
    assert max(kept) <= bound and len(kept) == len(list((tmp_path / "native").glob("model-*.safetensors"))) > 3
    index = json.loads((tmp_path / "native" / shards.INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    _, report = AutoModelForImageTextToText.from_pretrained(tmp_path / "native", output_loading_info=True)
    assert not any(report.values())
