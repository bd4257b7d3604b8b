"""The whole pipeline on every published family, from a directory as it is downloaded to the run's record."""

from __future__ import annotations

import json
import math

import pytest
import torch

from families.table import FAMILIES
from qig.errors import EvaluationError
from qig.evaluation.protocols import WRAPPERS
from qig.models.checkpoint import model_type, resolve
from qig.quantization.linear import FakeQuantLinear
from qig.quantized import load_checkpoint
from qig.runner import Prepared

FEW = (
    "tracking=none",
    "method=qig",
    "calibration.samples=2",
    "equalization.points=3",
    "equalization.step=0.4",
    "sensitivity.nodes=2",
    "sensitivity.max_nodes=2",
    "evaluation.limit=4",
    "evaluation.max_empty_share=1",
)


BOTH = ("internvl3", "qwen3_vl", "idefics3")  # a linear does not know what family it is in


@pytest.mark.parametrize("family", FAMILIES)
def test_calibrated_evaluated_and_loaded_again(family_checkpoint, compose, tmp_path, monkeypatch, family):
    path = f"model.path={family_checkpoint(family)}"
    for quant, bits in (("w3a16", None), ("w4a8", 8)):
        if quant == "w4a8" and family not in BOTH:
            continue
        if (family, quant) != ("internvl3", "w3a16"):
            monkeypatch.setattr("qig.runner.BASELINES", {})  # they take no other way than the run itself
        config = compose("model=hf", path, f"quant={quant}", f"store={tmp_path}", *FEW)
        outcome = Prepared(config).run()
        record = json.loads((tmp_path / "runs" / outcome.run / "record.json").read_text())
        metrics = record["metrics"]["qig_digitgrid"]
        assert metrics["n"] == 4 and math.isfinite(metrics["nll"])
        assert {site["site"] for site in record["sites"]} >= {"attn_in", "mlp_in", "mlp_out"}
        assert all(site["exponent"] is not None and site["fallback"] in (None, []) for site in record["sites"])
        quantized = load_checkpoint(tmp_path / "runs" / outcome.run, torch.device("cpu"))
        layers = {n: m for n, m in quantized.model.named_modules() if isinstance(m, FakeQuantLinear)}
        assert len(layers) == 7 * len(quantized.blocks)
        assert all(name.startswith(f"{quantized.architecture.text_model}.layers.") for name in layers)
        assert {layer.activations and layer.activations.bits for layer in layers.values()} == {bits}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_protocol_without_a_row_for_the_family_is_refused_before_anything_is_loaded(
    family_checkpoint, compose, tmp_path, family
):
    folder = family_checkpoint(family)
    words = ("evaluation.protocol=wrapper", "quant=fp16", "method=none")
    config = compose("model=hf", f"model.path={folder}", f"store={tmp_path}", *words)
    if model_type(resolve(str(folder))) in WRAPPERS:
        Prepared(config)
    else:
        with pytest.raises(EvaluationError, match=r"evaluation\.protocol=wrapper: unknown family .*protocol=plain"):
            Prepared(config)
