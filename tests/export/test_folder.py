"""The exported folder: shards, sizes, names, configuration, card."""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import TINY
from qig.errors import ModelError
from qig.export.names import block_prefix
from qig.export.scheme import scheme_of
from qig.export.shards import INDEX, Shards
from qig.export.sizes import sizes
from qig.export.tensors import compressed
from qig.models.checkpoint import resolve
from qig.quantization.grid import WeightGrid, quantize_weight


def quant(bits, group=128, symmetric=False, activations=None):
    weights = {"bits": bits, "symmetric": symmetric, "group_size": group}
    return {"name": "test", "weights": weights, "activations": activations}


@pytest.mark.parametrize(("bits", "bound"), [(4, 0.28), (3, 0.22), (2, 0.16)])
@pytest.mark.parametrize("shape", [(3584, 3584), (512, 3584), (3584, 18944)])
def test_bytes_of_linears_of_real_shapes(bits, bound, shape):
    rows, columns = shape
    weight = torch.randn(rows // 16, columns)  # a sixteenth of the rows, which all take the same
    tensors = compressed(quantize_weight(weight, WeightGrid(bits, False, 128)), scheme_of(quant(bits)))
    assert sum(value.nbytes for value in tensors.values()) <= bound * 2 * weight.numel()


@pytest.mark.parametrize("model", TINY)
@pytest.mark.parametrize(("setting", "bound"), [("w4a16", 0.28), ("w3a16", 0.22), ("w8a8", 0.52)])
def test_bytes_on_disk(model, setting, bound, exported):
    export = exported(model, setting)
    found = sizes(export.folder, resolve(f"embedded:{model}"))
    assert found["quantized linears"].ratio <= bound
    files = sum(file.stat().st_size for file in export.folder.glob("*.safetensors"))
    assert 0 <= files - found["all weights"].stored < 0.05 * files  # the rest is the headers


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("group", [32, 40, 160, None])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_library_gives_back_what_it_packed(bits, group, symmetric):
    from compressed_tensors.compressors import BaseCompressor

    weight = torch.randn(37, 160) * torch.logspace(-6, 3, 37).unsqueeze(1)
    quantized = quantize_weight(weight, WeightGrid(bits, symmetric, group))
    scheme = scheme_of(quant(bits, group, symmetric))
    packed = compressed(quantized, scheme)
    back = BaseCompressor.get_value_from_registry(scheme.format).decompress(packed, scheme)
    assert torch.equal(packed["weight_scale"], quantized.scale)
    assert torch.equal(back["weight"], quantized.dequantize())


def test_shards_hold_all_tensors_and_an_index(tmp_path):
    tensors = {f"t{index}": torch.full((size,), float(index)) for index, size in enumerate((10, 30, 200, 5, 5))}
    shards = Shards(tmp_path, limit=200)
    for name, tensor in tensors.items():
        shards.add(name, tensor)
    shards.close()
    files = sorted(tmp_path.glob("*.safetensors"))
    assert [file.name for file in files] == [f"model-{n:05d}-of-00003.safetensors" for n in (1, 2, 3)]
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["metadata"]["total_size"] == 1000
    for name, file in index["weight_map"].items():
        assert torch.equal(load_file(tmp_path / file)[name], tensors[name])
    assert index["weight_map"].keys() == tensors.keys()


def test_blocks_are_found_by_their_parameters(tmp_path):
    block = {"self_attn.q_proj.integers": torch.zeros(1), "self_attn.q_proj.scale": torch.zeros(1)}
    files = []
    for index in range(2):
        files.append(tmp_path / f"{index}.safetensors")
        save_file({**block, "norm.weight": torch.zeros(1)}, files[-1])
    tower = {f"vision.layers.{i}.{name}.weight" for i in range(2) for name in ("self_attn.q_proj", "norm", "fc1")}
    text = {f"text.layers.{i}.{name}.weight" for i in range(2) for name in ("self_attn.q_proj", "norm")}
    assert block_prefix(tower | text, files) == "text."
    computed = {f"text.layers.{i}.self_attn.rotary_emb.inv_freq" for i in range(2)}  # Llama 2's files have it
    assert block_prefix(tower | text | computed, files) == "text."
    for names in (tower, text | {"text.layers.2.norm.weight"}, text | {name.replace("text", "x") for name in text}):
        with pytest.raises(ModelError, match="2 decoder blocks"):
            block_prefix(names, files)


@pytest.mark.parametrize("model", TINY)
def test_ignored_are_exactly_the_linears_that_keep_their_weight(model, exported):
    export = exported(model, "w8a8")
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(resolve(f"embedded:{model}"))
    with torch.device("meta"):
        empty = AutoModelForImageTextToText.from_config(config)
    linears = {name for name, module in empty.named_modules() if type(module) is torch.nn.Linear}
    untouched = {name for name in linears if "language_model" not in name}
    written = json.loads((export.folder / "config.json").read_text())["quantization_config"]
    assert untouched <= set(written["ignore"])
    stored = {name for file in export.folder.glob("*.safetensors") for name in load_file(file)}
    others = set(written["ignore"]) - untouched
    assert others <= {name.removesuffix(".weight") for name in stored}  # the checkpoint's own names for the same
    assert not any("layers" in name and "vis" not in name for name in written["ignore"])
    assert [group["targets"] for group in written["config_groups"].values()] == [["Linear"]]


def test_card_is_made_of_the_record(exported):
    export = exported("tiny_qwen2_vl", "w8a8", "evaluation.limit=40")  # several images
    card = (export.folder / "README.md").read_text()
    record = export.record
    assert card.startswith("---\nlibrary_name: transformers")
    assert f"run `{export.run.name}`" in card and "SmoothQuant" in card
    assert record["stages"]["calibration"]["sha256"] in card
    accuracy = record["metrics"]["qig_digitgrid"]["accuracy"]
    row = next(line for line in card.splitlines() if line.startswith("| SmoothQuant"))
    assert re.search(rf"\| +{100 * accuracy:.1f} \[\d", row)  # with its interval
    assert "alpha: 0.5" in card and "127.5" in card and "sigma = 0.65" in card
    assert "**vLLM**: not run" in card and "2603.17809" in card
    for size in sizes(export.folder, resolve("embedded:tiny_qwen2_vl")).values():
        assert f"{size.ratio:.3f}" in card
