"""QIG's options beyond the paper's defaults: targets, a constant or activation-quantized branch, clips, warm-up."""

from __future__ import annotations

from dataclasses import replace

import captum.attr
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles import toy
from oracles.attribution import by_breakpoints, midpoint, with_integer_activations
from oracles.grid import fake_weight
from oracles.settings import make_config
from oracles.views import Toy
from qig.data.tokens import TokenKind
from qig.sensitivity.clipping import clip
from qig.sensitivity.integral import attribute, closed_form, integrate
from qig.sensitivity.qig import QuantizationAwareIntegratedGradients

LINEAR, NONLINEAR = ("attn_out", "mlp_out"), ("attn_in", "mlp_in")
TARGETS = ("output", "error_vs_reference")


def scalar(target: str, f, weights, x, reference):
    """One sample's ``G`` at ``x [.., tokens, channels]``: sum over tokens of the mean over channels, ``[..]``."""
    moved = f(x, weights)
    if target == "error_vs_reference":
        moved = moved - f(reference, weights)
    return moved.abs().mean(-1).sum(-1)


def starts(view, reference: str):
    return [torch.zeros_like(c.x) for c in view.calls] if reference == "zero" else [c.x for c in view.quantized_calls]


def real_of(view):
    return [kinds != 0 for kinds in view.kinds]


def assert_close(found, expected, relative=1e-5):
    scale = float(expected.abs().max())
    assert scale > 0
    assert float((found - expected).abs().max()) <= relative * scale


@pytest.mark.parametrize("reference", ["zero", "quantized"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("site", LINEAR)
def test_closed_form_of_every_target(toys, site, target, reference):
    """Between the sign changes of the outputs the midpoint rule is exact, so that it errs by its cells only."""
    sites = toys(lengths=((5,), (4, 2)))
    view = sites.view(site)
    if site == "attn_out":  # an output with a bias does not start at zero
        sites.block.self_attn.o_proj.bias = torch.nn.Parameter(torch.linspace(-1, 1, 8).double(), requires_grad=False)
        sites.weights = toy.weights_of(sites.block)
    f, _ = toy.FUNCTIONS[site]
    found = closed_form(view, make_config(target=target), starts(view, reference), real_of(view))
    assert found.nodes == 0 and found.residual < 1e-10
    for batch, row, x, x_q in sites.samples(site):
        start = torch.zeros_like(x) if reference == "zero" else x_q
        expected = midpoint(lambda y, s=start: scalar(target, f, sites.weights, y, s), x, start, 1024)
        assert_close(found.values[batch][row, : len(x)], expected, 4 / 1024)
    if target == "error_vs_reference":  # linear in a: the gradient is constant, one node is exact
        config = make_config(target=target, quadrature="midpoint")
        once = integrate(view, config, starts(view, reference), real_of(view), 1)
        for one, other in zip(once.values, found.values, strict=True):
            assert_close(one, other, 1e-9)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("site", NONLINEAR)
def test_quadrature_of_every_target(toys, site, target):
    """The same rule and nodes as an oracle with its own module and loops; 1,024 midpoints for completeness' sake."""
    sites = toys(lengths=((5,), (4, 2)))
    view = sites.view(site)
    f, _ = toy.FUNCTIONS[site]
    config = make_config(target=target, quadrature="midpoint")
    found = integrate(view, config, starts(view, "quantized"), real_of(view), 32)
    for batch, row, x, x_q in sites.samples(site):
        expected = midpoint(lambda y, s=x_q: scalar(target, f, sites.weights, y, s), x, x_q, 32)
        assert_close(found.values[batch][row, : len(x)], expected)
    ((_, _, x, x_q), *_) = sites.samples(site)
    fine = midpoint(lambda y: scalar(target, f, sites.weights, y, x_q), x, x_q, 1024)
    best = integrate(view, make_config(target=target), starts(view, "quantized"), real_of(view), 64)
    assert_close(best.values[0][0, : len(x)], fine, 0.02)  # kinks of |.|: 64 Gauss-Legendre nodes against 1,024
    change = scalar(target, f, sites.weights, x, x_q) - scalar(target, f, sites.weights, x_q, x_q)
    assert float(fine.sum()) == pytest.approx(float(change), rel=5e-3)


@pytest.mark.parametrize("target", ("error", *TARGETS))
@pytest.mark.parametrize("site", NONLINEAR)
def test_no_reference_is_zeros(toys, site, target):
    """What is left out where the reference is zero changes nothing; biases of q, k and v are there at zero."""
    view = toys().view(site)
    config = make_config(target=target)
    alone = integrate(view, config, [None] * len(view.calls), real_of(view), 3)
    zeros = integrate(view, config, starts(view, "zero"), real_of(view), 3)
    assert alone.residual == pytest.approx(zeros.residual, rel=1e-9, abs=1e-12)
    for one, other in zip(alone.values, zeros.values, strict=True):
        assert_close(one, other, 1e-12)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("site", LINEAR + NONLINEAR)
def test_captum_on_the_same_scalar(toys, site, target):
    sites = toys(lengths=((4,),))
    view = sites.view(site)
    f, _ = toy.FUNCTIONS[site]
    ((_, _, x, x_q),) = sites.samples(site)
    method = captum.attr.IntegratedGradients(lambda y: scalar(target, f, sites.weights, y, x_q))
    expected = method.attribute(x[None], x_q[None], n_steps=16, method="gausslegendre", internal_batch_size=1)
    found = integrate(view, make_config(target=target), starts(view, "quantized"), real_of(view), 16)
    assert_close(found.values[0][0], expected[0])


@pytest.mark.parametrize("target", TARGETS)
def test_the_estimator_passes_its_target_on(toys, target):
    view = toys().view("mlp_out")
    values = QuantizationAwareIntegratedGradients(make_config(target=target, reference="quantized")).scores(view).values
    expected = closed_form(view, make_config(target=target), starts(view, "quantized"), real_of(view)).values
    other = closed_form(view, make_config(), starts(view, "quantized"), real_of(view)).values
    for value, attribution, error in zip(values, expected, other, strict=True):
        torch.testing.assert_close(value, attribution.abs().mean(-1))
        assert not torch.allclose(value, error.abs().mean(-1), rtol=0.1)


@pytest.mark.parametrize("reference", ["zero", "quantized"])
@pytest.mark.parametrize("setting", ["w3a16", "w4a8"])
@pytest.mark.parametrize("site", LINEAR + NONLINEAR)
def test_constant_branch(toys, site, setting, reference):
    """No gradient flows through f(., w_q), whose activations are quantized, too, in front of every linear: the
    gradient is that of ``1000 |f(x_a, w) - const|``."""
    sites = toys(setting)
    view = sites.view(site)
    activations = setting == "w4a8"
    config = make_config(
        quantized_branch="constant", quantized_activations=activations, factor=1000.0, quadrature="riemann_left"
    )
    assert attribute(view, config, starts(view, reference), real_of(view)).nodes > 0  # no closed form applies
    found = integrate(view, config, starts(view, reference), real_of(view), 6)
    f, _ = toy.FUNCTIONS[site]

    def branch(x):
        if not activations:
            return f(x, sites.quantized)
        return with_integer_activations(site, x, sites.quantized)

    for batch, row, x, x_q in sites.samples(site):
        start = torch.zeros_like(x) if reference == "zero" else x_q
        total = torch.zeros_like(x)
        for node in np.linspace(0, 1, 6):
            point = (start + float(node) * (x - start)).requires_grad_()
            constant = branch(point.detach())
            value = 1000 * (f(point, sites.weights) - constant).abs().mean(-1).sum()
            total += torch.autograd.grad(value, point)[0] / 6
        assert_close(found.values[batch][row, : len(x)], (x - start) * total)


@pytest.mark.parametrize("name", ["top5_zero", "top5_mean", "iqr", "none"])
def test_clips_by_sorting(toys, name):
    sites = toys(lengths=((45, 20),))
    view = sites.view("mlp_out")
    plain = QuantizationAwareIntegratedGradients(make_config()).scores(view).values[0]
    found = QuantizationAwareIntegratedGradients(make_config(clip=name, clip_factor=0.2)).scores(view).values[0]
    for row, length, top in ((0, 45, 3), (1, 20, 1)):  # 5% rounded up
        scores = plain[row, :length].tolist()
        highest = sorted(scores)[-top:]
        if name == "iqr":
            low, high = np.percentile(scores, [25, 75])
            spread = 0.2 * (high - low)
            expected = np.clip(scores, max(low - spread, 0), high + spread)
            assert expected.tolist() != scores
        else:
            instead = {"top5_zero": 0.0, "top5_mean": sum(scores) / length}
            expected = [instead.get(name, s) if s in highest else s for s in scores]
        assert found[row, :length].tolist() == pytest.approx(list(expected), rel=1e-6)
        assert (found[row, length:] == 0).all()


@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=60),
    st.sampled_from([0.0, 0.5, 1.5]),
    st.sampled_from([1.0, 1e-7]),  # scores of real sites are tiny
)
def test_clip_bounds(scores, factor, unit):
    scores = [score * unit for score in scores]
    values = torch.tensor([scores], dtype=torch.float64)
    everything = torch.ones_like(values, dtype=torch.bool)
    low, high = np.percentile(scores, [25, 75])
    found = clip(values, everything, "iqr", factor)
    tolerance = 1e-12 * max(map(abs, scores))
    assert float(found.min()) >= low - factor * (high - low) - tolerance
    assert float(found.max()) <= high + factor * (high - low) + tolerance
    inside = (values >= low - factor * (high - low) + tolerance) & (values <= high + factor * (high - low) - tolerance)
    assert torch.equal(found[inside], values[inside])
    count = -(-len(scores) // 20)
    kept = values.sort().values[0, : len(scores) - count]
    for name, instead in (("top5_zero", 0.0), ("top5_mean", float(values.mean()))):
        expected = torch.cat([kept, torch.full((count,), instead, dtype=torch.float64)]).sort().values
        found = clip(values, everything, name, factor).sort().values[0]
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_signed_sum_of_a_nonlinear_site_is_completeness_token_by_token(toys):
    """At the MLP tokens do not meet: each token's signed sum is the change of its own error."""
    sites = toys()
    view = sites.view("mlp_in")
    config = make_config(score="signed_sum", nodes=64, max_nodes=64)
    found = QuantizationAwareIntegratedGradients(config).scores(view).values
    for batch, row, x, _ in sites.samples("mlp_in"):
        error = (toy.mlp(x, sites.weights) - toy.mlp(x, sites.quantized)).abs().mean(-1)
        torch.testing.assert_close(found[batch][row, : len(x)], error, rtol=2e-2, atol=1e-3 * float(error.max()))


@pytest.mark.parametrize("site", ["mlp_in", "mlp_out"])
def test_warm_up_sites_weigh_vision_and_answer_tokens_alike(toys, site):
    estimator = QuantizationAwareIntegratedGradients(make_config(warmup_sites=5))
    view = toys(lengths=((5, 3), (7, 4))).view(site)
    for ordinal in (0, 4):
        found = estimator.scores(replace(view, ordinal=ordinal))
        assert found.fallback == "among the configured warm-up sites"
        for values, kinds in zip(found.values, view.kinds, strict=True):
            content = (kinds == TokenKind.VISION) | (kinds == TokenKind.ANSWER)
            assert torch.equal(values, content.float())
    after = estimator.scores(replace(view, ordinal=5))
    plain = QuantizationAwareIntegratedGradients(make_config()).scores(view)
    assert after.fallback is None
    assert all(torch.equal(one, other) for one, other in zip(after.values, plain.values, strict=True))


@given(st.integers(0, 1000), st.sampled_from(["error", *TARGETS]), st.sampled_from(["zero", "quantized"]))
def test_completeness_of_every_target(seed, target, reference):
    """At linear sites exactly, at nonlinear ones up to the residual that the estimator itself reports."""
    sites = Toy(lengths=((3, 2),), seed=seed)
    for site, limit in (("mlp_out", 1e-9), ("mlp_in", 0.05)):
        view = sites.view(site)
        config = make_config(target=target, nodes=16, max_nodes=64)
        found = attribute(view, config, starts(view, reference), real_of(view))
        assert found.residual < limit
        f, _ = toy.FUNCTIONS[site]
        for batch, row, x, x_q in sites.samples(site):
            start = torch.zeros_like(x) if reference == "zero" else x_q
            if target == "error":
                ends = [(f(y, sites.weights) - f(y, sites.quantized)).abs().mean(-1).sum() for y in (x, start)]
            else:
                ends = [scalar(target, f, sites.weights, y, start) for y in (x, start)]
            gap = abs(float(found.values[batch][row].sum() - (ends[0] - ends[1])))
            assert gap <= 1e-9 + 2 * limit * float(ends[0] + ends[1])
        assert all((values[kinds == 0] == 0).all() for values, kinds in zip(found.values, view.kinds, strict=True))


@pytest.mark.parametrize("reference", ["zero", "quantized"])
def test_closed_form_of_a_bfloat16_model(toys, reference):
    """Its weights, and the quantized ones, are 16-bit numbers; what is done with them is not: 1e-3, as noted."""
    sites = toys(lengths=((5, 3),))
    sites.block.bfloat16()
    for xs in (sites.inputs, sites.drifted):
        for width, values in xs.items():
            xs[width] = [x.bfloat16() for x in values]
    view = sites.view("mlp_out")
    found = closed_form(view, make_config(), starts(view, reference), real_of(view)).values[0]
    weight = sites.block.mlp.down_proj.weight.float()
    quantized = torch.from_numpy(fake_weight(weight.numpy(), 3, False, 4)).bfloat16()
    for _, row, x, x_q in sites.samples("mlp_out"):
        start = torch.zeros_like(x) if reference == "zero" else x_q
        expected = by_breakpoints(weight.double(), quantized.double(), x.double(), start.double())
        assert_close(found[row, : len(x)], expected, 1e-3)
