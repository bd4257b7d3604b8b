"""Grid search and SmoothQuant against their formulas, written out on a toy block in float64."""

from __future__ import annotations

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
from qig.blockwise.site import SiteView
from qig.config.schema import GridEqualization, SmoothQuantEqualization
from qig.equalization.equalizer import largest_activation, mean_activation
from qig.equalization.grid_search import GridSearch, power_scale
from qig.equalization.smoothquant import SmoothQuant
from qig.errors import NonFiniteError


def brute_force(view: SiteView, weights, exponents, scope: str, loss: str) -> list[float]:
    """The weighted error of every exponent, token by token."""
    site, grid = view.site.name, view.setting.weights
    exact = toy.weights_of(view.block)
    inside = torch.cat([call.x[kinds != 0] for call, kinds in zip(view.calls, view.kinds, strict=True)])
    statistic = inside.abs().mean(0).numpy()
    losses = []
    for r in exponents:
        s = np.maximum(statistic**r, 1e-4)
        s = s / np.sqrt(s.max() * s.min())
        quantized = dict(exact)
        for name in toy.CONSUMERS[site]:
            fake = fake_weight(exact[name].numpy() * s, grid.bits, grid.symmetric, grid.group_size)
            quantized[name] = torch.from_numpy(fake)
        total = 0.0
        for call, weight in zip(view.calls, weights, strict=True):
            for row, x in enumerate(call.x):
                divided = x / torch.from_numpy(s)
                if view.setting.activations is not None:
                    divided = torch.from_numpy(fake_activation(divided.numpy(), view.setting.activations.bits))
                if scope == "module":
                    f, _ = toy.FUNCTIONS[site]
                    error = f(x, exact) - f(x, quantized, divided)
                else:
                    names = toy.CONSUMERS[site]
                    error = torch.cat(
                        [toy.apply(x, exact, n) - toy.apply(divided, quantized, n) for n in names], dim=-1
                    )
                per_token = (error**2 if loss == "mse" else error.abs()).mean(-1)
                total += float((per_token * weight[row]).sum())
        losses.append(total)
    return losses


@pytest.mark.parametrize("loss", ["mse", "mae"])
@pytest.mark.parametrize("scope", ["module", "linear"])
@pytest.mark.parametrize("setting", ["w3a16", "w4a8"])
@pytest.mark.parametrize("site", SITES)
def test_grid_search_is_brute_force(site, setting, scope, loss):
    view, weights = make_view(site, setting)
    config = GridEqualization("grid", [site], False, 6, 0.15, scope, loss, "exact", "mean", False)
    found = GridSearch(config).scale(view, weights)
    assert found.exponents == pytest.approx([0, 0.15, 0.3, 0.45, 0.6, 0.75])
    expected = brute_force(view, weights, found.exponents, scope, loss)
    assert found.losses == pytest.approx(expected, rel=1e-4)
    best = found.exponents[int(np.argmin(expected))]
    assert found.exponent == best
    torch.testing.assert_close(found.value, power_scale(mean_activation(view), best))


def test_the_whole_published_grid():
    found = GridSearch(GridEqualization("grid", [], False, 20, 0.05, "module", "mse", "exact", "mean", False)).scale(
        *make_view("mlp_in", "w3a16")
    )
    assert found.exponents == [i * 5 / 100 for i in range(20)]


def test_token_weights_decide_the_exponent():
    """All the weight on one token gives that token's best exponent, which differs between tokens."""
    config = GridEqualization("grid", [], False, 8, 0.125, "module", "mse", "exact", "mean", False)
    chosen = set()
    for batch, row, token in ((0, 0, 0), (0, 0, 3), (0, 1, 2), (1, 0, 1), (1, 1, 3)):
        view, _ = make_view("mlp_in", "w3a16")
        weights = [torch.zeros(kinds.shape) for kinds in view.kinds]
        weights[batch][row, token] = 1
        found = GridSearch(config).scale(view, weights)
        assert found.losses == pytest.approx(brute_force(view, weights, found.exponents, "module", "mse"), rel=1e-4)
        chosen.add(found.exponent)
    assert len(chosen) > 1


def test_linears_outside_the_pattern_stay_in_16_bits_during_the_search():
    """What will not be quantized must not count as error: only ``up`` is selected here, then nothing at all."""
    view, weights = make_view("mlp_in", "w3a16")
    config = GridEqualization("grid", [], False, 4, 0.25, "module", "mse", "exact", "mean", False)
    only_up = replace(view, setting=replace(view.setting, linears=re.compile(r"mlp\.up_proj")))
    found = GridSearch(config).scale(only_up, weights).losses
    exact = toy.weights_of(view.block)
    statistic = mean_activation(view).double()
    for r, loss in zip((0, 0.25, 0.5, 0.75), found, strict=True):
        s = power_scale(statistic, r).double()
        quantized = dict(exact, up=torch.from_numpy(fake_weight((exact["up"] * s).numpy(), 3, False, 4)) / s)
        expected = sum(
            float((((toy.mlp(x, exact) - toy.mlp(x, quantized)) ** 2).mean(-1) * weight).sum())
            for x, weight in zip([call.x for call in view.calls], weights, strict=True)
        )
        assert loss == pytest.approx(expected, rel=1e-4)
    none = replace(view, setting=replace(view.setting, linears=re.compile("nothing")))
    result = GridSearch(config).scale(none, weights)
    assert result.losses == [0, 0, 0, 0] and torch.equal(result.value, torch.ones(8))


def test_candidates_whose_error_is_no_number_are_not_chosen(caplog):
    """float16 overflows at some scales: infinity minus infinity must lose against every finite error."""
    view, weights = make_view("mlp_out", "w3a16")
    search = GridSearch(GridEqualization("grid", [], False, 4, 0.25, "module", "mse", "exact", "mean", False))
    plain = search.scale(view, weights)
    poisoned = view.setting.equalized
    first = power_scale(mean_activation(view), 0.0)

    class Setting_(type(view.setting)):
        def equalized(self, linear, scale):
            layer = poisoned(linear, scale)
            if torch.equal(scale, first):
                layer.weight[0, 0] = torch.nan
            return layer

    setting = Setting_(view.setting.weights, view.setting.activations, view.setting.linears)
    found = search.scale(replace(view, setting=setting), weights)
    assert "block 0, mlp_out: exponents [0.0] are out" in caplog.text
    assert found.exponent == plain.exponents[1 + int(np.argmin(plain.losses[1:]))]
    for call in view.calls:
        call.x[0, 0] = torch.inf
    with pytest.raises(NonFiniteError, match="outputs at block 0, mlp_out, sample"):
        search.scale(replace(view), weights)


def test_block_is_left_as_it_was():
    view, weights = make_view("attn_in", "w4a8")
    modules = dict(view.block.named_modules())
    parameters = {k: v.clone() for k, v in view.block.state_dict().items()}
    config = GridEqualization("grid", [], False, 3, 0.3, "module", "mse", "exact", "mean", False)
    GridSearch(config).scale(view, weights)
    assert dict(view.block.named_modules()) == modules
    assert all(torch.equal(value, parameters[name]) for name, value in view.block.state_dict().items())


def test_statistics_ignore_padding():
    view, _ = make_view("mlp_in", "w3a16")
    real = torch.cat([call.x[kinds != 0] for call, kinds in zip(view.calls, view.kinds, strict=True)])
    view.calls[0].x[1, 3:] = 1e6
    torch.testing.assert_close(mean_activation(view), real.abs().mean(0).float())
    torch.testing.assert_close(largest_activation(view), real.abs().amax(0).float())


def test_power_scale():
    statistic = torch.tensor([1e-9, 0.01, 1.0, 100.0])
    s = power_scale(statistic, 0.5)
    expected = np.maximum(np.array([1e-9, 0.01, 1, 100]) ** 0.5, 1e-4)
    np.testing.assert_allclose(s, expected / np.sqrt(expected.max() * expected.min()), rtol=1e-5)
    assert float(s.max() * s.min()) == pytest.approx(1, rel=1e-5)
    assert torch.equal(power_scale(statistic, 0.0), torch.ones(4))


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("site", ["attn_in", "mlp_in"])
def test_smoothquant(site, alpha):
    view, _ = make_view(site, "w4a8")
    found = SmoothQuant(SmoothQuantEqualization("smoothquant", [site], False, alpha)).scale(view, None)
    x = torch.cat([call.x[kinds != 0] for call, kinds in zip(view.calls, view.kinds, strict=True)]).abs().numpy()
    weights = toy.weights_of(view.block)
    w = np.concatenate([weights[name].abs().numpy() for name in toy.CONSUMERS[site]])
    expected = [x[:, j].max() ** alpha / w[:, j].max() ** (1 - alpha) for j in range(8)]
    np.testing.assert_allclose(found.value, expected, rtol=1e-5)
    assert found.losses is None


def test_smoothquant_of_channels_that_are_zero():
    """No input, no weight, neither, and a scale below the smallest: 1e-5 stands for each, and all stays finite."""
    (view, _), alpha = make_view("mlp_in", "w4a8"), 0.8
    linears = [view.block.get_submodule(f"mlp.{name}_proj") for name in ("gate", "up")]
    for call in view.calls:
        call.x[..., [0, 2, 3]] = 0
    for linear in linears:
        linear.weight[:, [1, 2]] = 0
    linears[0].weight[0, 0], linears[0].weight[0, 3] = 5.0, 1e6
    inside = torch.cat([call.x[kinds != 0] for call, kinds in zip(view.calls, view.kinds, strict=True)])
    largest = float(inside[:, 1].abs().max())
    found = SmoothQuant(SmoothQuantEqualization("smoothquant", ["mlp_in"], False, alpha)).scale(view, None)
    expected = [1e-4 / 5.0**0.2, largest**0.8 / 0.1, 1e-4 / 0.1, 1e-5]  # the last were 6e-6
    np.testing.assert_allclose(found.value[:4], expected, rtol=1e-5)
    assert torch.isfinite(found.value).all()


def grid_search(early_stop: bool) -> GridSearch:
    return GridSearch(GridEqualization("grid", [], False, 8, 0.125, "module", "mse", "exact", "mean", early_stop))


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("site", SITES)
def test_early_stop_changes_no_scale(site, setting):
    view, weights = make_view(site, setting)
    whole = grid_search(early_stop=False).scale(view, weights)
    early = grid_search(early_stop=True).scale(view, weights)
    assert torch.equal(early.value, whole.value) and early.exponent == whole.exponent
    assert None in early.losses and None not in whole.losses
    assert all(loss in (None, other) for loss, other in zip(early.losses, whole.losses, strict=True))


class Errors:
    """Errors of candidates on micro-batches, and how many of them were asked for."""

    def __init__(self, errors: list[list[float]]) -> None:
        self.errors, self.exact, self.asked = errors, errors[0], 0

    def of_scale(self, scale, batches=None, so_far=0.0, bound=float("inf")):
        for error in [self.errors[scale][i] for i in batches or range(len(self.exact))]:
            self.asked += 1
            so_far += error
            if so_far > bound:
                break
        return so_far


def test_a_candidate_that_begins_with_the_best_total_is_followed_to_its_end():
    """It is worse; taken for a tie it would be written down as one."""
    errors = Errors([[0.5, 0.5], [1.0, 1.0]])
    assert grid_search(early_stop=True)._losses(errors, [0, 1])[0] == 1.0
    assert grid_search(early_stop=True)._losses(errors, [0, 1])[1] in (None, 2.0)


ERRORS = st.one_of(st.floats(0, 10), st.sampled_from([0.0, 1.0, float("inf"), float("nan")]))


@given(st.integers(1, 5).flatmap(lambda n: st.lists(st.lists(ERRORS, min_size=n, max_size=n), min_size=1, max_size=8)))
def test_early_stop_finds_the_first_of_the_least(errors):
    candidates = list(range(len(errors)))
    whole = grid_search(early_stop=False)._losses(Errors(errors), candidates)
    found = Errors(errors)
    early = grid_search(early_stop=True)._losses(found, candidates)
    finite = [loss for loss in whole if np.isfinite(loss)]
    if finite:
        assert early.index(min(finite)) == whole.index(min(finite))
        assert all(other is None or not other < min(finite) for other in early)
    assert found.asked <= len(errors) * len(errors[0])
