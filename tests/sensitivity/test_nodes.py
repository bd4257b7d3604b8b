"""How many nodes an integral gets, and what the weights are worth that come of the default's few."""

from __future__ import annotations

import pytest
import torch

from oracles import attribution as oracle
from oracles import toy
from oracles.settings import make_config
from qig.sensitivity import integral
from qig.sensitivity.qig import QuantizationAwareIntegratedGradients
from qig.sensitivity.weights import token_weights


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
    ("site", "reference", "tolerances", "second"),
    [
        ("mlp_in", "zero", 3.9, 4),
        ("mlp_in", "zero", 4.1, 8),
        ("attn_in", "quantized", 3.9, 4),
        ("attn_in", "quantized", 4.1, 8),
        ("attn_in", "zero", 1.1, 8),
    ],
)
def test_nodes_are_quadrupled_where_the_residual_is_far_from_the_tolerance_or_says_little(
    toys, monkeypatch, site, reference, tolerances, second
):
    """``tolerances``: how many of them the residual of the first nodes is; ``second``: the nodes that come next."""
    view = toys(lengths=((12, 9),)).view(site)
    starts = [None] if reference == "zero" else [call.x for call in view.quantized_calls]
    first = integral.integrate(view, make_config(), starts, view.real, 2)
    config = make_config(nodes=2, max_nodes=8, tolerance=first.residual / tolerances)
    used, rule = [], integral.rule
    monkeypatch.setattr(integral, "rule", lambda name, n: used.append(n) or rule(name, n))
    integral.attribute(view, config, starts, view.real)
    assert used[:2] == [2, second]
