"""The plain implementation of the published cost structure computes what ``method=qig_release`` computes."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file

from oracles.published_cost import SITES, Published
from qig.blockwise.activations import Activations
from qig.blockwise.artefact import block_folder
from qig.blockwise.run import BlockPass
from qig.config.validation import resolve

CPU = torch.device("cpu")
BLOCKS = 3


@pytest.mark.parametrize("setting", ["w3a16", "w4a8"])
def test_same_weights_losses_and_exponents(fresh_model, compose, digit_samples, batches_of, tmp_path, setting):
    """In float64 and with padding. With integer activations a few values fall on the other side of a half."""
    whole = "equalization.early_stop=false"
    config = resolve(compose("method=qig_release", f"quant={setting}", "tracking=none", whole))
    ours = fresh_model("tiny_qwen2_vl", blocks=BLOCKS)
    ours.model.double()
    plain = copy.deepcopy(ours)
    batches = batches_of(ours, digit_samples[:3])
    for batch in batches:
        batch.inputs.update({name: v.double() for name, v in batch.inputs.items() if v.is_floating_point()})
    assert not all(batch.real.all() for batch in batches)
    passed = BlockPass(ours, batches, config, Activations(CPU), tmp_path).run()

    grid, integers = config.quant.weights, config.quant.activations
    published = Published(grid.bits, grid.symmetric, grid.group_size, integers.bits if integers else None,
                          config.sensitivity.warmup_sites)  # fmt: skip
    found = published.run(plain.model, plain.blocks, batches)

    records = {(r["block"], r["site"]): r for block in passed for r in block["sites"]}
    assert list(records) == list(found) == [(block, site) for block in range(BLOCKS) for site in SITES]
    for (index, site), theirs in found.items():
        record = records[index, site]
        weights = load_file(block_folder(tmp_path, index) / "findings.safetensors")[f"block.{index}.{site}"]
        rows = {place: theirs["weights"][i][row][batch.real[row]]
                for i, batch in enumerate(batches) for row, place in enumerate(batch.order)}  # fmt: skip
        expected = torch.cat([rows[place] for place in sorted(rows)])
        difference = (weights - expected).abs() / expected.abs().clamp(min=0.01 * float(expected.max()))
        assert float(difference.median()) < 1e-4 and float(difference.quantile(0.98)) < 1e-2
        assert record["losses"] == pytest.approx(theirs["losses"], rel=1e-3)
        assert record["exponent"] == theirs["exponent"]
    assert {"capture", "attribution", "search", "rounding", "propagation"} == set(published.seconds[-1])
    for one, other in zip(ours.blocks, plain.blocks, strict=True):
        torch.testing.assert_close(one.mlp.down_proj.weight, other.mlp.down_proj.weight)
