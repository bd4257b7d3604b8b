"""Scales learned by gradient: straight-through values and derivatives, and never worse than the grid."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles import toy
from oracles.grid import fake_activation, fake_weight
from oracles.views import SETTINGS, SITES, make_view
from qig.config.schema import LearnedEqualization
from qig.equalization.error import SiteError
from qig.equalization.grid_search import GridSearch
from qig.equalization.learned import LearnedScales
from qig.quantization.grid import WeightGrid, fake_quantize_through, quantize_weight


def config(**changes) -> LearnedEqualization:
    base = LearnedEqualization("learned", list(SITES), False, 5, 0.2, "module", "mse", "exact", "mean", False, 20, 0.02)
    return replace(base, **changes)


def true_error(view, weights, scale, loss: str = "mse", tried=None) -> float:
    """The weighted module error of a scale, sample by sample, with NumPy's grids. ``tried``: what is quantized."""
    site, grid = view.site.name, view.setting.weights
    exact = toy.weights_of(view.block)
    s = scale.double().numpy()
    quantized = dict(exact)
    for name in toy.CONSUMERS[site]:
        fake = fake_weight(exact[name].numpy() * s, grid.bits, grid.symmetric, grid.group_size)
        quantized[name] = torch.from_numpy(fake)
    f, _ = toy.FUNCTIONS[site]
    total = 0.0
    for call, seen, weight in zip(view.calls, tried or view.calls, weights, strict=True):
        for row, (x, x_tried) in enumerate(zip(call.x, seen.x, strict=True)):
            divided = x_tried.numpy() / s
            if view.setting.activations is not None:
                divided = fake_activation(divided, view.setting.activations.bits)
            error = f(x, exact) - f(x_tried, quantized, torch.from_numpy(divided))
            error = error**2 if loss == "mse" else error.abs()
            total += float((error.mean(-1) * weight[row]).sum())
    return total


@pytest.mark.parametrize("loss", ["mse", "mae"])
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("site", SITES)
def test_never_worse_than_the_grid_by_the_true_error(site, setting, loss):
    view, weights = make_view(site, setting)
    grid = GridSearch(config(loss=loss)).scale(view, weights)
    found = LearnedScales(config(loss=loss)).scale(view, weights)
    assert found.losses == grid.losses and found.exponent == grid.exponent
    assert found.learned_loss <= min(grid.losses)
    assert found.learned_loss == pytest.approx(true_error(view, weights, found.value, loss), rel=1e-4)


def test_an_exponent_whose_error_is_not_finite_does_not_end_the_learning(monkeypatch):
    """As of a float16 model that overflows there; the grid search leaves it out, too."""
    view, weights = make_view("mlp_in", "w3a16", seed=1)
    before = LearnedScales(config()).scale(view, weights)
    search = LearnedScales.search

    def overflows(self, view, error):
        start = search(self, view, error)
        assert start.exponent != 0
        return replace(start, losses=[math.nan, *start.losses[1:]])

    monkeypatch.setattr(LearnedScales, "search", overflows)
    found = LearnedScales(config()).scale(view, weights)
    assert torch.equal(found.value, before.value) and found.learned_loss == before.learned_loss
    assert found.learned_loss < min(before.losses)


def test_each_step_has_the_gradient_of_its_own_point(monkeypatch):
    """Not of those before it, too; over all micro-batches, in units of the grid's error."""
    view, weights = make_view("mlp_in", "w3a16", seed=1)
    chosen = config(steps=4, rate=0.05)
    error = SiteError(view, chosen, weights, view)
    unit = min(GridSearch(chosen).scale(view, weights).losses)
    seen, step = [], torch.optim.Adam.step

    def spied(optimizer, *given):
        (logarithm,) = optimizer.param_groups[0]["params"]
        seen.append((logarithm.detach().clone(), logarithm.grad.clone()))
        return step(optimizer, *given)

    monkeypatch.setattr(torch.optim.Adam, "step", spied)
    LearnedScales(chosen).scale(view, weights)
    assert len(seen) == 4
    for logarithm, gradient in seen:
        with torch.enable_grad():
            scale = logarithm.requires_grad_().exp()
            tried = {name: view.setting.equalized_through(linear, scale) for name, linear in error.linears.items()}
            total = sum(error.of_batch(index, tried) for index in range(len(view.calls))) / unit
            (expected,) = torch.autograd.grad(total, logarithm)
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_where_the_grid_leaves_no_error_there_is_none_to_be_divided_by():
    view, weights = make_view("mlp_in", "w3a16")
    view = replace(view, setting=replace(view.setting, linears=re.compile("mlp.up_proj")))
    view.block.mlp.up_proj.weight.zero_()
    assert LearnedScales(config(steps=2)).scale(view, weights).learned_loss == 0


def test_learning_pays():
    """On most toys; on some the grid's point is the best that is seen."""
    gains = []
    for seed in range(6):
        view, weights = make_view("mlp_in", "w3a16", seed)
        found = LearnedScales(config()).scale(view, weights)
        gains.append(found.learned_loss / min(found.losses))
    assert np.median(gains) < 0.9


def test_weights_decide_what_is_learned():
    view, weights = make_view("mlp_out", "w3a16")
    one, other = [w.clone() for w in weights], [w.clone() for w in weights]
    one[0][:], other[1][:] = 0, 0
    found = [LearnedScales(config()).scale(view, w).value for w in (one, other)]
    assert not torch.allclose(*found, rtol=1e-2)


@pytest.mark.parametrize("unit", [1e-8, 1e8])
def test_learning_does_not_depend_on_the_size_of_the_outputs(unit):
    """Large models' outputs are tiny at some sites: what is learned must not vanish in Adam's epsilon. A power of two,
    so that nothing but the exponent of a floating-point number changes."""
    view, weights = make_view("mlp_in", "w3a16", seed=1)
    before = LearnedScales(config()).scale(view, weights)
    assert before.learned_loss < min(before.losses)
    view.block.mlp.down_proj.weight *= 2.0 ** round(np.log2(unit))
    after = LearnedScales(config()).scale(replace(view), weights)
    torch.testing.assert_close(after.value, before.value, rtol=1e-4, atol=0)


def test_stream():
    """``stream: quantized``: errors, statistic and learning on x_q, the exact function applied to it as the target."""
    view, weights = make_view("mlp_in", "w4a8")
    on_quantized = replace(view, calls=view.quantized_calls, quantized_calls=None)
    for method in (GridSearch, LearnedScales):
        found = method(config(stream="quantized")).scale(view, weights)
        expected = method(config(stream="exact")).scale(on_quantized, weights)
        other = method(config(stream="exact")).scale(view, weights)
        assert torch.equal(found.value, expected.value) and found.losses == expected.losses
        assert found.losses != other.losses
        assert method(config(stream="quantized")).needs_quantized_stream
        assert not method(config(stream="exact")).needs_quantized_stream


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("site", SITES)
def test_both_streams(site, setting):
    """``stream: both``: the exact f on x beside quantized linears on x_q, whose statistic the scales are made of."""
    view, weights = make_view(site, setting)
    method = GridSearch(config(stream="both", loss="mae"))
    found = method.scale(view, weights)
    assert method.needs_quantized_stream
    on_quantized = GridSearch(config(stream="quantized")).scale(replace(view), weights)
    x_q = torch.cat([call.x[kinds != 0] for call, kinds in zip(view.quantized_calls, view.kinds, strict=True)])
    for exponent, loss in zip(found.exponents, found.losses, strict=True):
        scale = (x_q.abs().mean(0) ** exponent).clamp(min=1e-4)
        scale = scale / (scale.max() * scale.min()).sqrt()
        assert loss == pytest.approx(true_error(view, weights, scale, "mae", view.quantized_calls), rel=1e-4)
    assert found.losses != on_quantized.losses


@given(st.integers(0, 10_000), st.sampled_from([(3, False, 4), (2, False, None), (4, True, None), (8, True, 6)]))
def test_straight_through_values_are_those_of_the_grid_bit_for_bit(seed, grid):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(5, 12, generator=generator) * torch.exp(3 * torch.randn(5, 1, generator=generator))
    weight[0, :4] = 0.25  # a group without range
    grid = WeightGrid(*grid)
    expected = quantize_weight(weight, grid).dequantize()
    assert torch.equal(fake_quantize_through(weight, grid), expected)


def frozen(weight: np.ndarray, at: np.ndarray, grid: WeightGrid) -> np.ndarray:
    """The grid with every rounding of ``at`` kept as an offset, so that it is smooth: what straight-through assumes.

    What lies beyond the grid's ends at ``at`` stays there, what lies between or on them moves.
    """
    size = grid.group_size or weight.shape[1]
    result = np.zeros_like(weight)
    for row in range(len(weight)):
        for start in range(0, weight.shape[1], size):
            part = slice(start, start + size)

            def parameters(w):
                if grid.symmetric:
                    return max(np.abs(w).max(), 1e-5) / grid.high, 0.0
                scale = max(w.max() - w.min(), 1e-5) / grid.high
                return scale, -w.min() / scale

            def bounded(moved, rounded, low):
                inside = (low <= rounded) & (rounded <= grid.high)
                return np.where(inside, moved, np.clip(rounded, low, grid.high))

            scale, zero = parameters(weight[row, part])
            scale_at, zero_at = parameters(at[row, part])
            zero = bounded(zero + np.rint(zero_at) - zero_at, np.rint(zero_at), 0)
            steps_at = at[row, part] / scale_at
            integers_at = np.rint(steps_at) + np.clip(np.rint(zero_at), 0, grid.high)
            steps = weight[row, part] / scale + np.rint(steps_at) - steps_at
            result[row, part] = (bounded(steps + zero, integers_at, grid.low) - zero) * scale
    return result


@pytest.mark.parametrize("grid", [(3, False, 4), (4, True, None)])
def test_gradients_of_the_grid_are_finite_differences_with_the_roundings_kept(grid):
    grid = WeightGrid(*grid)
    generator = np.random.default_rng(0)
    weight, scale = generator.normal(size=(3, 8)), np.exp(0.1 * generator.normal(size=8))
    weight[:, ::4], weight[:, 1::4] = -2.5, 2  # zero points inside their range: at its end there is no derivative
    toward = generator.normal(size=(3, 8))

    def smooth(s):
        return float((frozen(weight * s, weight * scale, grid) * toward).sum())

    s = torch.from_numpy(scale).float().requires_grad_()
    fake = fake_quantize_through(torch.from_numpy(weight).float() * s, grid)
    (found,) = torch.autograd.grad((fake * torch.from_numpy(toward).float()).sum(), s)
    for channel in range(8):
        step = np.zeros(8)
        step[channel] = 1e-6
        expected = (smooth(scale + step) - smooth(scale - step)) / 2e-6
        assert float(found[channel]) == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("site", SITES)
def test_the_differentiated_error_is_the_searchs(site, setting):
    view, weights = make_view(site, setting)
    error = SiteError(view, config(), weights, view)
    start = torch.linspace(-0.5, 0.5, view.calls[0].x.shape[-1])
    logarithm, total = start.clone().requires_grad_(), 0.0
    for index in range(len(view.calls)):
        with torch.enable_grad():
            replaced = {n: view.setting.equalized_through(m, logarithm.exp()) for n, m in error.linears.items()}
            value = error.of_batch(index, replaced)
        value.backward()
        total += float(value.detach())
    assert total == pytest.approx(error.of_scale(start.exp()), rel=1e-5)
    assert total == pytest.approx(true_error(view, weights, start.exp()), rel=1e-4)
    assert torch.isfinite(logarithm.grad).all() and float(logarithm.grad.norm()) > 0


def frozen_error(view, weights, s: np.ndarray, at: np.ndarray) -> float:
    """``true_error`` of the scales s with every rounding, of weights and activations, kept as it is at ``at``."""
    exact = toy.weights_of(view.block)
    quantized = dict(exact)
    for name in toy.CONSUMERS[view.site.name]:
        weight = exact[name].numpy()
        quantized[name] = torch.from_numpy(frozen(weight * s, weight * at, view.setting.weights))
    f, _ = toy.FUNCTIONS[view.site.name]
    total = 0.0
    for call, weight in zip(view.calls, weights, strict=True):
        for row, x in enumerate(call.x.numpy()):
            divided = x / s
            if view.setting.activations is not None:  # a token's grid is that of a symmetric row
                divided = frozen(divided, x / at, WeightGrid(view.setting.activations.bits, True, None))
            error = f(torch.from_numpy(x), exact) - f(torch.from_numpy(x), quantized, torch.from_numpy(divided))
            total += float(((error**2).mean(-1) * weight[row]).sum())
    return total


def slopes(view, weights, at: np.ndarray) -> np.ndarray:
    """Finite differences of ``frozen_error`` by each channel's logarithm."""
    found = []
    for channel in range(len(at)):
        step = np.exp(1e-6 * (np.arange(len(at)) == channel))
        change = frozen_error(view, weights, at * step, at) - frozen_error(view, weights, at / step, at)
        found.append(change / 2e-6)
    return np.array(found)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("site", SITES)
def test_gradients_of_the_error_are_finite_differences_with_the_roundings_kept(site, setting):
    """Through weights, divided inputs and the activations' own scales: of each channel's logarithm."""
    view, weights = make_view(site, setting)
    error = SiteError(view, config(), weights, view)
    start = 0.1 * torch.randn(view.calls[0].x.shape[-1], generator=torch.Generator().manual_seed(3))
    logarithm = start.clone().requires_grad_()
    for index in range(len(view.calls)):
        with torch.enable_grad():
            replaced = {n: view.setting.equalized_through(m, logarithm.exp()) for n, m in error.linears.items()}
            error.of_batch(index, replaced).backward()
    expected = slopes(view, weights, start.double().exp().numpy())
    np.testing.assert_allclose(logarithm.grad.numpy(), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("rate", [0.004, 0.01])
def test_the_rate_is_the_first_step_of_adam(rate):
    """``lr g / |g|`` of each channel's logarithm, down the slope of the error where the search ended."""
    improved = 0
    for seed in range(8):
        view, weights = make_view("mlp_in", "w3a16", seed)
        found = LearnedScales(config(steps=1, rate=rate)).scale(view, weights)
        if found.learned_loss < min(found.losses):
            start = GridSearch(config()).scale(view, weights).value
            step = (found.value / start).log()
            torch.testing.assert_close(step.abs(), torch.full_like(step, rate), rtol=1e-3, atol=0)
            slope = slopes(view, weights, start.double().numpy())
            clear = np.abs(slope) > 1e-2 * np.abs(slope).max()
            assert (np.sign(step.numpy()) == -np.sign(slope))[clear].all()
            improved += 1
    assert improved >= 2
