"""Nearest and clipped rounding; the search for the range of a group by brute force."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from oracles import rounding as oracle
from oracles.grid import fake_weight
from qig.config.schema import ClippedRounding, NearestRounding
from qig.quantization.grid import WeightGrid, quantize_weight
from qig.rounding.clipped import ClippedNearest
from qig.rounding.nearest import Nearest
from qig.rounding.rounder import LinearInputs

ROWS, COLUMNS = 4, 12
GRIDS = [(3, False, 4), (2, False, 6), (4, True, None), (3, True, 4)]


def problem(seed: int, tokens: int = 20):
    generator = np.random.default_rng(seed)
    weight = generator.standard_t(2, size=(ROWS, COLUMNS)).astype(np.float32)  # heavy tails: clipping pays
    x = generator.normal(size=(tokens, COLUMNS)) @ generator.normal(size=(COLUMNS, COLUMNS))
    return weight, x, generator.random(tokens)


def linear_of(weight: np.ndarray) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight = nn.Parameter(torch.from_numpy(weight), requires_grad=False)
    return linear


def clip(weights: dict[str, np.ndarray], x, token_weights, grid, points=10, max_shrink=0.5, skip=()):
    rounder = ClippedNearest(ClippedRounding("clipped", points, max_shrink, list(skip)))
    inputs = LinearInputs([torch.from_numpy(x)[None]], None, [torch.from_numpy(token_weights)[None]])
    linears = {name: linear_of(weight) for name, weight in weights.items()}
    return rounder.round(linears, SimpleNamespace(weights=WeightGrid(*grid)), inputs)


@pytest.mark.parametrize(("points", "max_shrink"), [(10, 0.5), (7, 0.3)])
@pytest.mark.parametrize("grid", GRIDS)
def test_every_candidate_tried_on_the_tokens(grid, points, max_shrink):
    changed = 0.0
    for seed in range(4):
        weight, x, token_weights = problem(seed)
        found = clip({"v_proj": weight}, x, token_weights, grid, points, max_shrink)["v_proj"].dequantize().numpy()
        clipped = oracle.best_clip(weight, x, token_weights, *grid, points, max_shrink)
        bits, symmetric, group = grid
        expected = fake_weight(clipped, bits, symmetric, group)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        changed = max(changed, float(np.abs(clipped - weight).max()))
    assert changed > 0.01  # something was clipped


def group_errors(weight, rounded, x, token_weights, group) -> np.ndarray:
    size = group or weight.shape[1]
    parts = [slice(i, i + size) for i in range(0, weight.shape[1], size)]
    return np.array(
        [[token_weights @ (x[:, p] @ (rounded - weight)[row, p]) ** 2 for p in parts] for row in range(len(weight))]
    )


@given(st.integers(0, 10_000), st.sampled_from(GRIDS))
def test_no_group_is_worse_than_nearest(seed, grid):
    weight, x, token_weights = problem(seed)
    ours = clip({"v_proj": weight}, x, token_weights, grid)["v_proj"].dequantize().numpy()
    nearest = quantize_weight(torch.from_numpy(weight), WeightGrid(*grid)).dequantize().numpy()
    ours, nearest = (group_errors(weight, w, x, token_weights, grid[2]) for w in (ours, nearest))
    assert (ours <= nearest * (1 + 1e-4) + 1e-9).all()


def test_token_weights_decide_the_range():
    weight, x, _ = problem(0, tokens=30)
    one, other = np.zeros(30), np.zeros(30)
    one[:2], other[-2:] = 1, 1
    found = [clip({"v_proj": weight}, x, w, (3, False, 4))["v_proj"].scale for w in (one, other)]
    assert not torch.allclose(*found)


@pytest.mark.parametrize("grid", [(3, False, 4), (3, True, 4)])
def test_groups_whose_inputs_never_occur_keep_their_range(grid):
    """All candidates are as good there: none is a reason to clip."""
    weight, x, token_weights = problem(0)
    x[:, 4:8] = 0
    found = clip({"v_proj": weight}, x, token_weights, grid)["v_proj"]
    nearest = quantize_weight(torch.from_numpy(weight), WeightGrid(*grid))
    assert torch.equal(found.scale[:, 1], nearest.scale[:, 1])
    assert torch.equal(found.integers[:, 4:8], nearest.integers[:, 4:8])
    assert not torch.equal(found.scale[:, 2], nearest.scale[:, 2])


def test_queries_and_keys_are_left_alone():
    weight, x, token_weights = problem(1)
    names = {f"self_attn.{name}_proj": weight for name in "qkv"}
    found = clip(names, x, token_weights, (3, False, 4), skip=["q_proj", "k_proj"])
    plain = quantize_weight(torch.from_numpy(weight), WeightGrid(3, False, 4))
    for name in ("self_attn.q_proj", "self_attn.k_proj"):
        assert torch.equal(found[name].integers, plain.integers) and torch.equal(found[name].scale, plain.scale)
    assert not torch.equal(found["self_attn.v_proj"].scale, plain.scale)


@pytest.mark.parametrize("grid", GRIDS)
def test_nearest_is_the_grid_itself(grid):
    weight, *_ = problem(2)
    setting = SimpleNamespace(weights=WeightGrid(*grid))
    found = Nearest(NearestRounding("nearest")).round({"a": linear_of(weight)}, setting, None)
    bits, symmetric, group = grid
    np.testing.assert_allclose(found["a"].dequantize(), fake_weight(weight, bits, symmetric, group), rtol=1e-6)
