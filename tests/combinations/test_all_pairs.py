"""Every estimator with every equalization, each of both with every rounding, through the whole pass."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file

from oracles.calls import logits_of
from qig.blockwise.activations import Activations
from qig.blockwise.artefact import apply_block, block_folder
from qig.blockwise.methods import Methods
from qig.blockwise.run import BlockPass
from qig.config.validation import resolve
from qig.equalization import EQUALIZERS
from qig.quantization.linear import QuantizedLinear
from qig.quantization.setting import Setting
from qig.rounding import ROUNDERS
from qig.sensitivity import ESTIMATORS
from qig.sensitivity.granularity import CONTROLS, GRANULARITIES

CPU = torch.device("cpu")
EQUALIZATIONS, ROUNDINGS = ["none", *EQUALIZERS], list(ROUNDERS)
FEW = {
    "grid": ["equalization.points=3", "equalization.step=0.3"],
    "learned": ["equalization.points=3", "equalization.step=0.3", "equalization.steps=2"],
    "qig": ["sensitivity.nodes=2", "sensitivity.max_nodes=2"],
}
TRIPLES = [
    (estimator, equalization, ROUNDINGS[(i + j) % len(ROUNDINGS)], i + j)
    for i, estimator in enumerate(ESTIMATORS)
    for j, equalization in enumerate(EQUALIZATIONS)
]


def test_all_pairs_are_covered():
    for a, b, first, second in (
        (0, 1, ESTIMATORS, EQUALIZATIONS), (0, 2, ESTIMATORS, ROUNDINGS), (1, 2, EQUALIZATIONS, ROUNDINGS)
    ):  # fmt: skip
        assert {(t[a], t[b]) for t in TRIPLES} == {(x, y) for x in first for y in second}


@pytest.fixture(scope="module")
def prepared(fresh_model, digit_samples, batches_of):
    loaded = fresh_model("tiny_qwen2_vl")
    batches = batches_of(loaded, digit_samples[:2], 10_000)
    assert len(batches) == 1 and not batches[0].real.all()
    return loaded, batches, logits_of(loaded, batches)[0]


@pytest.mark.parametrize(("estimator", "equalization", "rounding", "turn"), TRIPLES)
def test_combination(compose, prepared, tmp_path, estimator, equalization, rounding, turn):
    """At 8 bits every combination leaves the function nearly as it was: a scale that is folded wrongly, or a column
    compensated in the wrong direction, would not. Granularity, control, setting and sharing take turns."""
    original, batches, before = prepared
    loaded = copy.deepcopy(original)
    controls = ["none", "permuted", *CONTROLS]
    granularity = "modality" if estimator == "modality_gradient" else list(GRANULARITIES)[turn % 3]
    grid = ["quant=w8a8"] if turn % 2 else ["quant=w4a16", "quant.weights.bits=8"]
    config = resolve(
        compose(
            f"sensitivity={estimator}", f"equalization={equalization}", f"rounding={rounding}", *grid,
            *FEW.get(estimator, []), *FEW.get(equalization, []), f"sensitivity.granularity={granularity}",
            f"sensitivity.control={controls[turn % len(controls)]}",
            f"equalization.share_attn_out={str(turn % 4 > 1).lower()}",
        )
    )  # fmt: skip
    records = BlockPass(loaded, batches, config, Activations(CPU), tmp_path).run()
    after = logits_of(loaded, batches)[0]
    real = batches[0].real
    assert float((after - before)[real].norm()) < 0.05 * float(before[real].norm())

    linears = [m for block in loaded.blocks for n, m in block.named_modules() if n.endswith("_proj")]
    assert len(linears) == 14 and all(isinstance(m, QuantizedLinear) for m in linears)
    methods = Methods.of(config)
    looked_at = methods.rounder.needs_inputs
    weighted = methods.equalizer is not None and methods.equalizer.needs_weights
    scaled = config.equalization.sites if equalization != "none" else []
    shared = config.equalization.share_attn_out
    found = {s for s in scaled if s != "attn_out" or shared}
    for index, record in enumerate(records):
        findings = load_file(block_folder(tmp_path, index) / "findings.safetensors")
        assert {n.rpartition(".")[2] for n in findings if n.startswith("scale.")} == found
        for name, weights in findings.items():
            if name.startswith("block."):
                assert float(weights.sum()) == pytest.approx(2, rel=1e-4) and (weights >= 0).all()
        everywhere = {"attn_in", "attn_out", "mlp_in", "mlp_out"}
        sites = everywhere if looked_at else (found if weighted else set())
        assert {n.rpartition(".")[2] for n in findings if n.startswith("block.")} == sites
        assert all(s["estimator"] == (estimator if s["site"] in sites else None) for s in record["sites"])

    again = copy.deepcopy(original)
    for index, block in enumerate(again.blocks):
        apply_block(block_folder(tmp_path, index), block, Setting.of(config.quant))
    assert torch.equal(logits_of(again, batches)[0], after)  # what lies on disk is the model in memory
