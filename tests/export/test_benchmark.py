"""The benchmark's rows, and torchao's kernels on the integers of an export."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import TINY
from export.load_alone import logits_of
from qig.export.benchmark import main
from qig.export.kernels import kernel_of, scale_and_zero, use_kernels
from qig.export.scheme import scheme_of
from qig.models.checkpoint import resolve


def test_rows_for_exports_and_their_source(exported, tmp_path, capsys):
    folders = [str(exported("tiny_qwen2_vl", setting).folder) for setting in ("w3a16", "w8a8")]
    source = str(resolve("embedded:tiny_qwen2_vl"))
    arguments = ["--source", source, "--prompt", "8", "--tokens", "2", "--repeats", "1", "--to", str(tmp_path)]
    assert main([*folders, *arguments]) == 0
    report = json.loads((tmp_path / "benchmark.json").read_text())
    rows = {row["name"]: row for row in report["rows"]}
    plain, packed = rows["16 bit"], rows["tiny_qwen2_vl-w3a16, transformers"]
    assert "tiny_qwen2_vl-w8a8, transformers" in rows
    assert packed["disk_bytes"] < plain["disk_bytes"]
    assert packed["memory_bytes"] == plain["memory_bytes"]  # unpacked while it was loaded
    assert all(row[key] > 0 for row in report["rows"] for key in ("prefill_seconds", "token_seconds"))
    assert (tmp_path / "benchmark.md").read_text() in capsys.readouterr().out


def test_what_is_no_export_is_refused(capsys):
    source = str(resolve("embedded:tiny_qwen2_vl"))
    assert main([source, "--source", source, "--prompt", "2", "--tokens", "1", "--repeats", "1"]) == 1
    assert "not what qig-export wrote" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("bits", "symmetric", "group", "activations", "kernel"),
    [
        (4, False, 128, None, "int4"),
        (4, True, 128, None, None),
        (4, False, 256, None, None),
        (3, False, 128, None, None),
        (8, True, None, {"bits": 8}, "int8"),
        (4, True, None, {"bits": 8}, "int8"),
        (8, True, 128, {"bits": 8}, None),
    ],
)
def test_kernels_are_taken_only_for_grids_that_they_have(bits, symmetric, group, activations, kernel):
    weights = {"bits": bits, "symmetric": symmetric, "group_size": group}
    assert kernel_of(scheme_of({"name": "test", "weights": weights, "activations": activations})) == kernel


@given(seed=st.integers(0, 2**16), groups=st.integers(1, 3))
def test_the_int4_kernels_zero_points_are_those_of_the_grid(seed, groups):
    generator = torch.Generator().manual_seed(seed)
    integers, zero = (torch.randint(16, (5, groups), generator=generator) for _ in range(2))
    scale = 0.01 + torch.rand(5, groups, generator=generator, dtype=torch.float64)
    its_scale, its_zero = scale_and_zero(scale, zero).unbind(-1)
    weights = (integers.T - 8) * its_scale + its_zero
    torch.testing.assert_close(weights, ((integers - zero) * scale).T, rtol=1e-12, atol=1e-12)


def with_kernels(export):
    from transformers import AutoModelForImageTextToText, CompressedTensorsConfig

    pytest.importorskip("torchao", reason="pip install --editable '.[speed]'")
    unpacked = CompressedTensorsConfig(dequantize=True)
    model = AutoModelForImageTextToText.from_pretrained(export.folder, quantization_config=unpacked).eval()
    weights = {name: module.weight.clone() for name, module in model.named_modules() if type(module) is torch.nn.Linear}
    use_kernels(model, export.folder)
    return model, weights


@pytest.mark.parametrize("model", TINY)
def test_the_int4_kernel_gives_the_evaluated_logits(model, exported, evaluated, picture):
    from transformers import AutoProcessor

    export = exported(model, "w4a16")
    found = logits_of(with_kernels(export)[0], AutoProcessor.from_pretrained(export.folder), str(picture))
    torch.testing.assert_close(found, evaluated(export), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("setting", ["w8a8", "w4a8"])
def test_the_int8_kernel_multiplies_by_the_evaluated_weights(setting, exported):
    """Logits differ more than by a rounding: every token's largest activation is a tie, |x| / scale = 127.5."""
    model, weights = with_kernels(exported("tiny_qwen2_vl", setting))
    quantized = {name: module.weight for name, module in model.named_modules() if hasattr(module, "weight")}
    quantized = {name: weight for name, weight in quantized.items() if hasattr(weight, "qdata")}
    assert len(quantized) == 42
    for name, weight in quantized.items():
        assert torch.equal(weight.dequantize(), weights[name])
        step = torch.eye(weights[name].shape[1])[:3]  # activations that are on any grid but for its largest integer
        found = torch.nn.functional.linear(step, weight)
        torch.testing.assert_close(found, step @ weights[name].T, rtol=2 / 127, atol=1e-6)
