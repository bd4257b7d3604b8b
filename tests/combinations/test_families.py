"""Methods that read gradients, attention or inputs of every linear, on every published family."""

from __future__ import annotations

import pytest
import torch

from families.table import FAMILIES
from qig.blockwise.activations import Activations
from qig.blockwise.run import BlockPass
from qig.config.validation import resolve
from qig.models.loading import load

CPU = torch.device("cpu")


@pytest.mark.parametrize("method", ["mbq", "qig sensitivity=attention", "vlmq"])
@pytest.mark.parametrize("family", FAMILIES)
def test_pass_finds_weights_in_every_block(
    family_checkpoint, compose, digit_samples, batches_of, tmp_path, family, method
):
    path = f"model.path={family_checkpoint(family)}"
    few = [] if method == "vlmq" else ["equalization.points=3", "equalization.step=0.4"]
    words = ("model.dtype=float32", "tracking=none", *f"method={method}".split(), *few)
    config = resolve(compose("model=hf", path, *words))
    loaded = load(config.model, CPU)
    batches = batches_of(loaded, digit_samples[:2])
    blocks = BlockPass(loaded, batches, config, Activations(CPU), tmp_path).run()
    assert len(blocks) == len(loaded.blocks)
    for site in (site for block in blocks for site in block["sites"]):
        assert site["estimator"] == config.sensitivity.kind and not site["fallback"]
    with torch.no_grad():
        logits = loaded.model(**batches[0].inputs).logits
    assert torch.isfinite(logits[batches[0].real]).all()
