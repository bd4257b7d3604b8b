"""The error that searches minimise: which stream is compared with which, what a bound ends, 16-bit outputs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from oracles import toy
from oracles.grid import fake_weight
from oracles.views import make_view
from qig.blockwise.capture import Call
from qig.config.schema import GridEqualization
from qig.equalization.equalizer import mean_activation
from qig.equalization.error import SiteError
from qig.equalization.grid_search import GridSearch, power_scale


def config(**changes) -> GridEqualization:
    base = GridEqualization("grid", [], False, 5, 0.2, "module", "mse", "exact", "mean", False)
    return replace(base, **changes)


@pytest.mark.parametrize("site", ["attn_in", "mlp_in"])
def test_outputs_of_linears_on_the_quantized_stream_are_compared_with_the_exact_ones(site):
    """``stream: both``, ``scope: linear``: W x beside Q(W s) (x_q / s)."""
    view, weights = make_view(site, "w3a16")
    found = GridSearch(config(stream="both", scope="linear")).scale(view, weights)
    exact = toy.weights_of(view.block)
    real = [kinds != 0 for kinds in view.kinds]
    statistic = torch.cat([c.x[keep] for c, keep in zip(view.quantized_calls, real, strict=True)]).abs().mean(0)
    for exponent, loss in zip(found.exponents, found.losses, strict=True):
        scale, total = power_scale(statistic, exponent).double(), 0.0
        tried = [torch.from_numpy(fake_weight((exact[name] * scale).numpy(), 3, False, 4)).T / scale[:, None]
                 for name in toy.CONSUMERS[site]]  # fmt: skip
        for call, seen, weight in zip(view.calls, view.quantized_calls, weights, strict=True):
            whole = torch.cat([call.x @ exact[name].T for name in toy.CONSUMERS[site]], dim=-1)
            error = whole - torch.cat([seen.x @ matrix for matrix in tried], dim=-1)
            total += float((error.square().mean(-1) * weight).sum())
        assert loss == pytest.approx(total, rel=1e-4)


def test_what_stands_at_padding_may_be_infinite():
    view, weights = make_view("mlp_out", "w3a16")
    expected = SiteError(view, config(), weights, view).of_scale(torch.ones(12))
    for call, kinds in zip(view.calls, view.kinds, strict=True):
        call.x[kinds == 0] = torch.inf
    view = replace(view)
    assert SiteError(view, config(), weights, view).of_scale(torch.ones(12)) == expected > 0


def test_a_candidate_that_has_just_reached_the_bound_is_followed_on():
    """It is a tie so far, and may lose by what is left."""
    view, weights = make_view("mlp_in", "w3a16")
    error, scale = SiteError(view, config(), weights, view), torch.ones(8)
    first = error.of_scale(scale, range(1))
    assert error.of_scale(scale, bound=first) == pytest.approx(error.of_scale(scale)) and error.of_scale(scale) > first


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_errors_and_statistics_of_16_bit_outputs_are_not_computed_in_16_bits(dtype):
    """The squares of errors beyond 256 leave float16's range, and a bfloat16 sum has 8 bits."""
    view, weights = make_view("mlp_out", "w3a16")
    calls = [Call((1000 * call.x).to(dtype), {}) for call in view.calls]
    view = replace(view, calls=calls, block=view.block.to(dtype))
    error = SiteError(view, config(), weights, view)
    scale = torch.ones(12)
    replacements = {name: view.setting.equalized(linear, scale) for name, linear in error.linears.items()}
    total, large = 0.0, 0.0
    for call, weight in zip(calls, weights, strict=True):
        apart = view.block.mlp.down_proj(call.x).double() - replacements["mlp.down_proj"](call.x).double()
        total += float((apart.square().mean(-1) * weight.double()).sum())
        large = max(large, float(apart.abs().max()))
    assert large > 256 and error.of_scale(scale) == pytest.approx(total, rel=5e-3)
    inside = torch.cat([call.x[kinds != 0] for call, kinds in zip(calls, view.kinds, strict=True)])
    torch.testing.assert_close(mean_activation(view), inside.double().abs().mean(0).float(), rtol=1e-6, atol=0)
