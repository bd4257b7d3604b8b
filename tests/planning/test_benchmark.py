"""The benchmark of published sizes: shapes, and a table of what was foreseen and measured."""

from __future__ import annotations

import json

import pytest
from omegaconf import OmegaConf

from qig.planning import benchmark


@pytest.mark.parametrize("shape", benchmark.SHAPES)
def test_shapes_are_whole_heads_and_groups(shape):
    values = OmegaConf.load(benchmark.SHAPES[shape])
    assert values["hidden_size"] % values["num_attention_heads"] == 0
    assert values["num_attention_heads"] % values["num_key_value_heads"] == 0
    assert values["hidden_size"] % 128 == values["intermediate_size"] % 128 == 0  # W3A16's groups


def test_a_small_one_end_to_end(tmp_path, monkeypatch, capsys):
    small = tmp_path / "small.yaml"
    small.write_text("hidden_size: 256\nintermediate_size: 384\nnum_attention_heads: 4\nnum_key_value_heads: 2\n")
    monkeypatch.setitem(benchmark.SHAPES, "small", small)
    few = ["calibration.samples=2", "equalization.points=2", "method=awq"]
    benchmark.main(["--shape", "small", "--device", "cpu", "--to", str(tmp_path), *few])
    assert "| time |" in capsys.readouterr().out
    found = json.loads((tmp_path / "calibration_small_w3a16_cpu.json").read_text())
    assert found["foreseen"]["tokens"] == found["measured"]["tokens"] > 0 and found["foreseen"]["blocks"] == 2
    assert found["config"]["method"] == "awq" and found["cpu"]["model"]
