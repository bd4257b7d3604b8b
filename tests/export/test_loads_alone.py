"""What others load is what was evaluated: logits in a process without our package, integers decoded by the library."""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.compressors.pack_quantized import unpack_from_int32
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import compute_dynamic_scales_and_zp
from safetensors.torch import load_file
from tests.export.conftest import LIBRARYS_GRID, PAIRS

from conftest import TINY


def exports(of) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("model", "setting"), [pair for pair in PAIRS if of(pair[1])])


def by_the_library(x, grid):
    """Activations as compressed-tensors quantizes them: scale max|x| / 127.5 where the papers have max|x| / 127."""
    args = QuantizationArgs(num_bits=grid.bits, symmetric=True, strategy="token", dynamic=True)
    return fake_quantize(x, *compute_dynamic_scales_and_zp(x, args, None), args)


def tensors_of(folder):
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


@exports(lambda setting: setting.endswith("a16"))
def test_logits_are_those_of_the_evaluated_model(model, setting, exported, alone, evaluated):
    export = exported(model, setting)
    assert torch.equal(alone(export), evaluated(export))


@pytest.mark.parametrize("setting", ["w8a8", "w4a8"])
def test_logits_are_those_of_the_evaluated_model_on_the_librarys_grid(setting, exported, alone, evaluated):
    export = exported(TINY[0], setting, LIBRARYS_GRID)
    torch.testing.assert_close(alone(export), evaluated(export), rtol=0, atol=1e-4)


@exports(lambda setting: setting.endswith("a8"))
def test_logits_are_equal_but_for_the_scale_of_activations(model, setting, exported, alone, evaluated, monkeypatch):
    export = exported(model, setting)
    ours = evaluated(export)
    with monkeypatch.context() as patch:
        patch.setattr("qig.quantization.linear.fake_quantize_activation", by_the_library)
        torch.testing.assert_close(alone(export), evaluated(export), rtol=0, atol=1e-4)
    with monkeypatch.context() as patch:
        patch.setattr("qig.quantization.linear.fake_quantize_activation", lambda x, grid: x)
        effect = (evaluated(export) - ours).square().mean().sqrt()
    assert 0 < (alone(export) - ours).square().mean().sqrt() < 2 * effect


@pytest.mark.parametrize(("setting", "roundings"), [("w4a16", 0), ("w8a8", 12)])
def test_logits_in_bfloat16(setting, roundings, exported, alone, evaluated, monkeypatch):
    """Weights alone: bit by bit. With activations, the loader rounds both them and their scales in each of 6 blocks."""
    export = exported(TINY[0], setting, "model.dtype=bfloat16")
    monkeypatch.setattr("qig.quantization.linear.fake_quantize_activation", by_the_library)
    theirs, ours = alone(export), evaluated(export)
    assert (theirs - ours).abs().max() <= roundings * 2**-8 * ours.abs().max()


@exports(lambda setting: True)
def test_the_library_decodes_the_integers_scales_and_zero_points(model, setting, exported):
    export = exported(model, setting)
    tensors = tensors_of(export.folder)
    stage = export.store / "quantized" / export.record["stages"]["quantized"]
    bits = int(setting[1])
    for index, file in enumerate(sorted(stage.glob("blocks/*/weights.safetensors"))):
        block = load_file(file)
        for name in [key.removesuffix(".integers") for key in block if key.endswith(".integers")]:
            (prefix,) = {
                key.partition(f"layers.{index}.{name}.weight_scale")[0]
                for key in tensors
                if key.endswith(f"layers.{index}.{name}.weight_scale")
            }
            found = {
                key.removeprefix(f"{prefix}layers.{index}.{name}."): value
                for key, value in tensors.items()
                if key.startswith(f"{prefix}layers.{index}.{name}.")
            }
            integers, scale = block[f"{name}.integers"], block[f"{name}.scale"]
            assert found["weight_scale"].dtype == torch.float32 and torch.equal(found["weight_scale"], scale)
            if setting.endswith("a8"):
                assert torch.equal(found["weight"], integers)
                assert "weight_zero_point" not in found
                continue
            offset = 2 ** (bits - 1)
            assert found["weight_shape"].tolist() == list(integers.shape)
            decoded = unpack_from_int32(found["weight_packed"], bits, integers.shape)
            assert torch.equal(decoded.int() + offset, integers.int())
            decoded = unpack_from_int32(found["weight_zero_point"], bits, scale.shape, packed_dim=0)
            assert torch.equal(decoded.int() + offset, block[f"{name}.zero_point"].int())


@pytest.mark.parametrize("model", TINY)
def test_everything_but_the_blocks_is_the_checkpoints_own(model, exported):
    from qig.models.checkpoint import resolve

    export = exported(model, "w4a16")
    source, written = tensors_of(resolve(f"embedded:{model}")), tensors_of(export.folder)
    outside = {name for name in source if "layers." not in name or "vis" in name.partition("layers.")[0]}
    assert outside
    for name in outside:
        assert written[name].dtype == source[name].dtype and torch.equal(written[name], source[name])
    for file in ("chat_template.jinja", "generation_config.json", "processor_config.json", "tokenizer.json"):
        assert (export.folder / file).read_bytes() == (resolve(f"embedded:{model}") / file).read_bytes()
