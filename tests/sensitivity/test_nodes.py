"""How many nodes an integral gets, and what the weights are worth that come of the default's few."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from oracles import attribution as oracle
from oracles import toy
from oracles.settings import make_config
from qig.sensitivity import integral
from qig.sensitivity.qig import QuantizationAwareIntegratedGradients
from qig.sensitivity.weights import token_weights


@pytest.mark.parametrize(("site", "reference", "first"), [("attn_in", "zero", 8), ("attn_in", "quantized", 2),
                                                           ("mlp_in", "zero", 2)])  # fmt: skip
def test_where_errors_cancel_few_nodes_that_seem_to_do_are_not_believed(toys, site, reference, first):
    view = toys().view(site)
    for most, expected in ((64, first), (4, min(first, 4)), (2, 2)):
        config = make_config(reference=reference, nodes=2, max_nodes=most, tolerance=1e9)
        assert QuantizationAwareIntegratedGradients(config).scores(view).nodes == expected


@pytest.mark.parametrize(
    ("site", "reference", "bound"),
    [
        ("attn_in", "zero", 0.007),  # errors cancel between tokens: as many nodes as the residual asks for do not do
        ("attn_in", "quantized", 0.01),
        ("mlp_in", "zero", 0.015),
        ("mlp_in", "quantized", 0.025),
    ],
)
def test_the_defaults_weights_are_those_of_1024_midpoint_nodes(compose, toys, site, reference, bound):
    """Total variation: of a sample's weight, so much at most lies on another token."""
    config = compose("quant=w3a16", f"sensitivity.reference={reference}").sensitivity
    f, _ = toy.FUNCTIONS[site]
    for seed in (0, 1, 3):
        sites = toys(lengths=((12, 9), (10, 10)), seed=seed)
        view = sites.view(site)
        found = token_weights(QuantizationAwareIntegratedGradients(config), view, config)
        for batch, row, x, x_q in sites.samples(site):
            start = torch.zeros_like(x) if reference == "zero" else x_q
            fine = oracle.by_midpoint(f, sites.weights, sites.quantized, x, start, 1024)
            scores = oracle.clipped(fine.abs().mean(-1)).clamp(min=0)
            apart = (found.values[batch][row, : len(x)] - scores / scores.sum()).abs().sum() / 2
            assert float(apart) < bound, f"seed {seed}, sample {batch}-{row}: {found.scores.nodes} nodes"


@pytest.mark.parametrize(
    ("site", "reference", "tolerances", "nodes"),
    [
        ("mlp_in", "zero", 3.9, [2, 4]),
        ("mlp_in", "zero", 4.1, [2, 8]),
        ("attn_in", "quantized", 3.9, [2, 4]),
        ("attn_in", "quantized", 4.1, [2, 8]),
        ("attn_in", "zero", 1.1, [8, 32]),
    ],
)
def test_nodes_are_quadrupled_where_the_residual_is_far_from_the_tolerance_or_says_little(
    toys, monkeypatch, site, reference, tolerances, nodes
):
    """``tolerances``: how many of them the residual of the first nodes is; ``nodes``: those, and which come next."""
    view = toys(lengths=((12, 9),)).view(site)
    starts = [None] if reference == "zero" else [call.x for call in view.quantized_calls]
    first = integral.integrate(view, make_config(), starts, view.real, nodes[0])
    config = make_config(nodes=2, max_nodes=nodes[1], tolerance=first.residual / tolerances)
    used, rule = [], integral.rule
    monkeypatch.setattr(integral, "rule", lambda name, n: used.append(n) or rule(name, n))
    integral.attribute(view, config, starts, view.real)
    assert used[:2] == nodes


RESIDUALS = [{2: 0.03, 4: 0.008, 8: 0.004, 16: 0.002}, {2: 0.10, 4: 0.05, 8: 0.02, 16: 0.002}]
"""Of each of two micro-batches, by nodes: every doubling at least halves them."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_16_bits_a_residual_is_compared_with_its_own_of_half_the_nodes(monkeypatch, dtype):
    """Not with that of the first micro-batch alone, which is looked at before."""

    def part(_view, _config, _references, _real, index, n, _reduce, _change=None):
        total = torch.tensor([1 + RESIDUALS[index][n]], dtype=torch.float64)
        return integral._Part(torch.zeros(1, 1), total, torch.ones(1, dtype=torch.float64))

    monkeypatch.setattr(integral, "_part", part)
    site = SimpleNamespace(is_linear=False, mixes_tokens=False)
    view = SimpleNamespace(site=site, calls=[SimpleNamespace(x=torch.zeros(1, dtype=dtype))] * 2)
    config = make_config(nodes=2, max_nodes=64, tolerance=0.01)
    found = integral.attribute(view, config, [torch.zeros(1)] * 2, [None] * 2)
    assert found.nodes == 16 and found.residual < config.tolerance


def test_the_first_micro_batch_alone_is_tried_first(toys, monkeypatch):
    """What it needs the others do, as a rule: they are not computed with fewer nodes in vain."""
    view = toys(lengths=((12, 9), (10, 10), (8, 3))).view("mlp_in")
    made, part = [], integral._part
    monkeypatch.setattr(integral, "_part", lambda *given: made.append((given[4], given[5])) or part(*given))
    integral.attribute(view, make_config(nodes=2, max_nodes=8, tolerance=1e-9), [None] * 3, view.real)
    assert [index for index, n in made if n < 8] == [0] * len([n for _, n in made if n < 8])
    assert sorted(index for index, n in made if n == 8) == [0, 1, 2]
