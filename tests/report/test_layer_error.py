"""The table of layer errors: its arithmetic by loops, and what it must show on the shipped models."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import TINY
from qig.data.calibration import CalibrationBatch
from qig.report import layer_error

RESULTS = Path(__file__).resolve().parents[2] / "results"


def batch_of(kinds) -> CalibrationBatch:
    kinds = torch.tensor(kinds, dtype=torch.uint8)
    return CalibrationBatch(("a", "b"), (0, 1), {}, kinds, torch.zeros(kinds.shape))


def test_relative_errors_by_loops():
    generator = torch.Generator().manual_seed(0)
    batches = [batch_of([[1, 2, 3], [1, 2, 0]]), batch_of([[1, 2], [3, 0]])]
    places = [("linear", "0.a"), ("linear", "0.b"), ("block", "0"), ("block", "1")]
    exact = {p: [torch.randn(*b.kinds.shape, 4, generator=generator) for b in batches] for p in places}
    found = {p: [y + 0.1 * torch.randn(y.shape, generator=generator) for y in ys] for p, ys in exact.items()}
    for ys in found.values():
        ys[0][1, 2], ys[1][1, 1] = torch.nan, 1e6  # padding may hold anything
    result = layer_error.relative_errors(exact, found, batches)
    errors = {}
    for place in places:
        lost = size = 0.0
        for y, y_q, batch in zip(exact[place], found[place], batches, strict=True):
            for row, token in np.argwhere(batch.kinds.numpy() != 0):
                lost += float(((y_q - y)[row, token] ** 2).sum())
                size += float((y[row, token] ** 2).sum())
        errors[place] = lost / size
    assert result["linear"] == pytest.approx((errors["linear", "0.a"] + errors["linear", "0.b"]) / 2, rel=1e-5)
    assert result["block"] == pytest.approx((errors["block", "0"] + errors["block", "1"]) / 2, rel=1e-5)
    assert result["end"] == pytest.approx(errors["block", "1"], rel=1e-5)


def test_gptq_and_gptaq_beat_nearest(monkeypatch, tmp_path, capsys):
    few = {name: layer_error.CONSTRUCTIONS[name] for name in ("RTN", "GPTQ", "GPTAQ")}
    monkeypatch.setattr(layer_error, "CONSTRUCTIONS", few)
    layer_error.main(
        ["--models", TINY[0], "--sigmas", "0.75", "--samples", "6", "--held-out", "3", "--output", str(tmp_path)]
    )
    rows = list(csv.DictReader((tmp_path / "layer_error.csv").open()))
    error = {(row["construction"], level): float(row[level]) for row in rows for level in ("linear", "block", "end")}
    for level in ("linear", "block", "end"):
        assert error["GPTQ", level] < 0.7 * error["RTN", level]
        assert error["GPTAQ", level] < 0.7 * error["RTN", level]
    text = (tmp_path / "layer_error.md").read_text()
    assert text in capsys.readouterr().out
    assert f"| GPTQ | {error['GPTQ', 'linear']:.4g} ({error['GPTQ', 'linear'] / error['RTN', 'linear']:.2f})" in text
    record = json.loads((tmp_path / "layer_error.json").read_text())
    assert record["command"].startswith(f"python -m qig.report.layer_error --models {TINY[0]}")
    assert {"git", "packages"} <= record.keys()


def test_outputs_that_equalization_rescales_are_left_out(fresh_model, digit_samples, batches_of, compose):
    loaded = fresh_model("tiny_internvl")
    found = layer_error.outputs(loaded, batches_of(loaded, digit_samples[:1], 1), compose("quant=w3a16"))
    names = {place[1].rpartition(".")[2] for place in found if place[0] == "linear"}
    assert names == {"q_proj", "k_proj", "o_proj", "gate_proj", "down_proj"}
    assert [place[1] for place in found if place[0] == "block"] == ["0", "1"]


def test_the_committed_table_is_whole_and_says_what_it_must(compose):
    rows = list(csv.DictReader((RESULTS / "layer_error.csv").open()))
    found = {(row["model"], float(row["sigma"]), row["construction"]): row for row in rows}
    defaults = {model: compose(f"model={model}").model.outliers.sigma for model in layer_error.MODELS}
    places = [(model, sigma) for model in layer_error.MODELS for sigma in (defaults[model], 0.0)]
    assert set(found) == {(*place, name) for place in places for name in layer_error.CONSTRUCTIONS}
    for place in places:
        for level in ("linear", "block", "end"):
            nearest = float(found[(*place, "RTN")][level])
            assert float(found[(*place, "GPTQ")][level]) < nearest
            assert float(found[(*place, "GPTAQ")][level]) < nearest
