"""Quantization-aware integrated gradients against brute force, against Captum, and against their axioms."""

from __future__ import annotations

import captum.attr
import numpy as np
import pytest
import torch

from oracles import attribution as oracle
from oracles import toy
from oracles.settings import make_config
from qig.quantization.grid import ActivationGrid, fake_quantize_activation
from qig.sensitivity.integral import attribute, closed_form, integrate
from qig.sensitivity.qig import QuantizationAwareIntegratedGradients

LINEAR, NONLINEAR = ("attn_out", "mlp_out"), ("attn_in", "mlp_in")
ALL = LINEAR + NONLINEAR


def real_of(view):
    return [kinds != 0 for kinds in view.kinds]


def references(toy_sites, view, reference: str):
    if reference == "zero":
        return [torch.zeros_like(call.x) for call in view.calls]
    grid = view.setting.activations
    return [call.x if grid is None else fake_quantize_activation(call.x, grid) for call in view.quantized_calls]


def _closed_form(view, starts, real):
    found = closed_form(view, make_config(), starts, real)
    return found.values, found.residual


def _integrated(view, starts, real, rule, nodes):
    found = integrate(view, make_config(quadrature=rule), starts, real, nodes)
    return found.values, found.residual


def assert_close(found, expected, relative=1e-5):
    scale = float(expected.abs().max())
    assert scale > 0
    assert float((found - expected).abs().max()) <= relative * scale


@pytest.mark.parametrize("site", LINEAR)
@pytest.mark.parametrize("setting", ["w3a16", "w4a8"])
@pytest.mark.parametrize("reference", ["zero", "quantized"])
def test_closed_form_is_the_exact_integral(toys, site, setting, reference):
    sites = toys(setting)
    view = sites.view(site)
    name = toy.CONSUMERS[site][0]
    found, residual = _closed_form(view, references(sites, view, reference), real_of(view))
    for batch, row, x, x_q in sites.samples(site):
        if reference == "zero":
            start = torch.zeros_like(x)
        else:
            start = x_q if setting == "w3a16" else fake_quantize_activation(x_q, ActivationGrid(8))
        exact = oracle.by_breakpoints(sites.weights[name], sites.quantized[name], x, start)
        assert_close(found[batch][row, : len(x)], exact)
        nodes = 1024
        midpoint = oracle.by_midpoint(toy.linear(name), sites.weights, sites.quantized, x, start, nodes)
        # without sign changes on the path (zero reference) the midpoint rule is exact, else it errs by 1/nodes
        assert_close(midpoint, exact, 1e-5 if reference == "zero" else 4 / nodes)
    assert residual < 1e-5


@pytest.mark.parametrize("site", LINEAR)
def test_signed_sum_with_zero_reference_is_the_tokens_mean_absolute_output_error(toys, qig_config, site):
    sites = toys()
    name = toy.CONSUMERS[site][0]
    scores = QuantizationAwareIntegratedGradients(qig_config(score="signed_sum")).scores(sites.view(site))
    assert scores.nodes == 0
    for batch, row, x, _ in sites.samples(site):
        error = (x @ (sites.weights[name] - sites.quantized[name]).T).abs().mean(-1)
        assert_close(scores.values[batch][row, : len(x)], error)


@pytest.mark.parametrize("site", ALL)
@pytest.mark.parametrize("reference", ["zero", "quantized"])
def test_quadrature_is_that_of_brute_force(toys, site, reference):
    """The same rule and nodes as the oracle, whose module, weights and loops are its own."""
    sites = toys()
    view = sites.view(site)
    found, _ = _integrated(view, references(sites, view, reference), real_of(view), "midpoint", 64)
    f, _ = toy.FUNCTIONS[site]
    for batch, row, x, x_q in sites.samples(site):
        start = torch.zeros_like(x) if reference == "zero" else x_q
        assert_close(found[batch][row, : len(x)], oracle.by_midpoint(f, sites.weights, sites.quantized, x, start, 64))


class _GatedByItsInput(toy.MLP):
    """Reads x through its linears and, in the last product, directly."""

    def forward(self, x):
        return super().forward(x) * x


@pytest.mark.parametrize("reference", ["zero", "quantized"])
def test_a_module_that_reads_x_beside_its_linears_is_differentiated_through_both(toys, reference):
    sites = toys()
    gated = _GatedByItsInput(8, 12).double().requires_grad_(False)
    gated.load_state_dict(sites.block.mlp.state_dict())
    sites.block.mlp = gated
    view = sites.view("mlp_in")
    found, _ = _integrated(view, references(sites, view, reference), real_of(view), "midpoint", 64)
    mlp, _ = toy.FUNCTIONS["mlp_in"]
    for batch, row, x, x_q in sites.samples("mlp_in"):
        start = torch.zeros_like(x) if reference == "zero" else x_q
        expected = oracle.by_midpoint(lambda y, w: mlp(y, w) * y, sites.weights, sites.quantized, x, start, 64)
        assert_close(found[batch][row, : len(x)], expected)


@pytest.mark.parametrize("site", NONLINEAR)
def test_few_gauss_legendre_nodes_reach_1024_midpoint_nodes(toys, site):
    sites = toys(lengths=((5,),))
    view = sites.view(site)
    zero = references(sites, view, "zero")
    found, residual = _integrated(view, zero, real_of(view), "gauss_legendre", 16)
    f, _ = toy.FUNCTIONS[site]
    ((_, _, x, _),) = sites.samples(site)
    exact = oracle.by_midpoint(f, sites.weights, sites.quantized, x, torch.zeros_like(x), 1024)
    assert_close(found[0][0], exact, 0.02)  # |.| has kinks along the path: no rule converges faster than they allow
    left, left_residual = _integrated(view, zero, real_of(view), "riemann_left", 16)
    assert (found[0][0] - exact).abs().sum() < (left[0][0] - exact).abs().sum()
    assert residual < left_residual


@pytest.mark.parametrize("site", ALL)
@pytest.mark.parametrize("reference", ["zero", "quantized"])
def test_captum_finds_the_same(toys, site, reference):
    """Captum's integrated gradients of the same scalar with the same Gauss-Legendre nodes, sample by sample."""
    sites = toys()
    view = sites.view(site)
    found, _ = _integrated(view, references(sites, view, reference), real_of(view), "gauss_legendre", 32)
    f, _ = toy.FUNCTIONS[site]

    def error(x):
        return (f(x, sites.weights) - f(x, sites.quantized)).abs().mean(-1).sum(-1)

    for batch, row, x, x_q in sites.samples(site):
        start = torch.zeros_like(x) if reference == "zero" else x_q
        theirs = captum.attr.IntegratedGradients(error).attribute(
            x[None], start[None], n_steps=32, method="gausslegendre"
        )[0]
        assert_close(found[batch][row, : len(x)], theirs)
        if site in LINEAR and reference == "zero":
            closed, _ = _closed_form(view, references(sites, view, reference), real_of(view))
            assert_close(closed[batch][row, : len(x)], theirs)


@pytest.mark.parametrize("site", ALL)
@pytest.mark.parametrize("reference", ["zero", "quantized"])
def test_completeness(toys, site, reference):
    """The attributions of a sample add up to the change of the error, and the residual says by how much they do not."""
    sites = toys()
    view = sites.view(site)
    found, residual = _integrated(view, references(sites, view, reference), real_of(view), "midpoint", 512)
    f, _ = toy.FUNCTIONS[site]
    gap = size = 0.0
    for batch, row, x, x_q in sites.samples(site):
        start = torch.zeros_like(x) if reference == "zero" else x_q
        change = oracle.path_error(f, sites.weights, sites.quantized, x)
        change = float(change - oracle.path_error(f, sites.weights, sites.quantized, start))
        assert float(found[batch][row].sum()) == pytest.approx(change, abs=0.01)
        gap += abs(float(found[batch][row].sum()) - change)
        size += abs(change)
    assert residual == pytest.approx(gap / size, rel=0.05, abs=1e-6)
    assert residual < 0.01


@pytest.mark.parametrize("site", ALL)
@pytest.mark.parametrize("closed_form", [True, False])
@pytest.mark.parametrize("reference", ["zero", "quantized"])
def test_padding_is_exactly_zero_and_without_influence(toys, qig_config, site, closed_form, reference):
    sites = toys()
    estimator = QuantizationAwareIntegratedGradients(qig_config(closed_form=closed_form, reference=reference))
    before = estimator.scores(sites.view(site)).values
    assert (before[1][1, 4:] == 0).all() and (before[1][1, :4] != 0).all()
    for xs in (sites.inputs, sites.drifted):
        for width in xs:
            xs[width][1][1, 4:] = 1e3
    after = estimator.scores(sites.view(site)).values
    for was, now in zip(before, after, strict=True):
        torch.testing.assert_close(was, now, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("site", ALL)
def test_channel_equal_to_its_reference_and_channel_without_error_get_zero(toys, site):
    sites = toys()
    width = 12 if site == "mlp_out" else 8
    for x, x_q in zip(sites.inputs[width], sites.drifted[width], strict=True):
        x_q[..., 3] = x[..., 3]
    view = sites.view(site)
    found, _ = _integrated(view, references(sites, view, "quantized"), real_of(view), "gauss_legendre", 8)
    assert all((attribution[..., 3] == 0).all() for attribution in found)
    # input channel 5 touches no linear of the site: changing it changes nothing
    for name in toy.CONSUMERS[site]:
        parent = sites.block.self_attn if name in "qkvo" else sites.block.mlp
        parent.get_submodule(f"{name}_proj").weight[:, 5] = 0
    view = sites.view(site)
    integrated, _ = _integrated(view, references(sites, view, "zero"), real_of(view), "gauss_legendre", 8)
    for attribution in integrated:
        assert (attribution[..., 5] == 0).all() and (attribution[..., 6] != 0).any()
    if site in LINEAR:
        closed, _ = _closed_form(view, references(sites, view, "zero"), real_of(view))
        assert all((attribution[..., 5] == 0).all() for attribution in closed)


@pytest.mark.parametrize("setting", ["w3a16", "w4a8"])
@pytest.mark.parametrize("reference", ["zero", "quantized"])
def test_two_networks_of_one_function_get_the_same_attributions(toys, setting, reference):
    """Implementation invariance: hidden channels change places, heads as a whole, and groups of a scale with them."""
    sites, other = toys(setting), toys(setting)
    block, order = other.block, {"mlp": torch.arange(12).roll(4), "self_attn": torch.arange(8).roll(4)}
    for name, parameter in block.named_parameters():
        module, _, inside = name.partition(".")
        if inside.startswith(("gate", "up", "q", "k", "v")):
            parameter.copy_(parameter[order[module]])
        elif inside.startswith(("down", "o")):
            parameter.copy_(parameter[:, order[module]])
    for site in NONLINEAR:
        view, permuted = sites.view(site), other.view(site)
        starts, real = references(sites, view, reference), real_of(view)
        found, _ = _integrated(view, starts, real, "gauss_legendre", 4)
        again, _ = _integrated(permuted, starts, real, "gauss_legendre", 4)
        first = toy.CONSUMERS[site][0]
        assert not torch.equal(toy.weights_of(sites.block)[first], toy.weights_of(block)[first])
        for one, two in zip(found, again, strict=True):
            assert_close(two, one, 1e-6)


@pytest.mark.parametrize("site", ALL)
@pytest.mark.parametrize("reference", ["zero", "quantized"])
def test_attributions_are_linear_in_the_scalar(toys, site, reference):
    """G is a mean over output channels: the attributions of some channels and of the others add up to those of all."""
    last = "self_attn.o_proj" if site.startswith("attn") else "mlp.down_proj"

    def of(rows) -> list[torch.Tensor]:
        sites = toys()
        linear = sites.block.get_submodule(last)
        linear.weight = torch.nn.Parameter(linear.weight[rows], requires_grad=False)
        view = sites.view(site)
        starts, real = references(sites, view, reference), real_of(view)
        if site in LINEAR:
            return _closed_form(view, starts, real)[0]
        return _integrated(view, starts, real, "gauss_legendre", 4)[0]

    for whole, some, others in zip(of(slice(0, 8)), of(slice(0, 3)), of(slice(3, 8)), strict=True):
        assert not torch.allclose(some, others)
        assert_close((3 * some + 5 * others) / 8, whole, 1e-6)


@pytest.mark.parametrize("site", ALL)
@pytest.mark.parametrize("reference", ["zero", "quantized"])
def test_a_samples_scores_do_not_depend_on_its_company(toys, qig_config, site, reference):
    together = toys(lengths=((7, 4), (5, 5)))
    estimator = QuantizationAwareIntegratedGradients(qig_config(reference=reference, clip="iqr"))
    scores = estimator.scores(together.view(site)).values
    alone = toys(lengths=((4,), (5,), (5,), (7,)))
    where = [(0, 1), (1, 1), (1, 0), (0, 0)]  # another order, too
    for width in alone.inputs:
        for place, (batch, row) in enumerate(where):
            length = alone.kinds[place].shape[1]
            alone.inputs[width][place] = together.inputs[width][batch][row : row + 1, :length]
            alone.drifted[width][place] = together.drifted[width][batch][row : row + 1, :length]
    for (batch, row), own in zip(where, estimator.scores(alone.view(site)).values, strict=True):
        torch.testing.assert_close(own[0], scores[batch][row, : own.shape[1]], rtol=1e-5, atol=1e-9)


def test_abs_mean_scores_and_clipping_against_numpy(toys, qig_config):
    sites = toys(lengths=((9, 6),))
    view = sites.view("mlp_out")
    plain = QuantizationAwareIntegratedGradients(qig_config()).scores(view).values[0]
    clipped = QuantizationAwareIntegratedGradients(qig_config(clip="iqr", clip_factor=0.2)).scores(view).values[0]
    attribution, _ = _closed_form(view, references(sites, view, "zero"), real_of(view))
    for row, length in enumerate((9, 6)):
        torch.testing.assert_close(plain[row], attribution[0][row].abs().mean(-1))
        expected = oracle.clipped(plain[row, :length], 0.2)
        assert not torch.allclose(expected, plain[row, :length])
        torch.testing.assert_close(clipped[row, :length], expected, rtol=1e-6, atol=1e-9)
        assert (clipped[row, length:] == 0).all()


def test_signed_scores_are_clipped_before_negative_ones_count_as_zero(toys, qig_config):
    """The bounds are those of the signed scores: quartiles of what is left of them would be others."""
    sites = toys(lengths=((9,),))
    view = sites.view("mlp_out")
    config = qig_config(score="signed_sum", reference="quantized", clip="iqr", clip_factor=0.2)
    found = QuantizationAwareIntegratedGradients(config).scores(view).values[0][0]
    attribution, _ = _closed_form(view, references(sites, view, "quantized"), real_of(view))
    signed = attribution[0][0].sum(-1)
    expected = oracle.clipped(signed, 0.2).clamp(min=0)
    assert not torch.allclose(expected, oracle.clipped(signed.clamp(min=0), 0.2))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("site", LINEAR)
def test_a_factor_multiplies_the_closed_form_and_its_residual_stays(toys, site):
    sites = toys()
    view = sites.view(site)
    starts, real = references(sites, view, "quantized"), real_of(view)
    one, many = (closed_form(view, make_config(factor=factor), starts, real) for factor in (1.0, 1000.0))
    assert many.residual == pytest.approx(one.residual, abs=1e-9) and one.residual < 1e-6
    for values, larger in zip(one.values, many.values, strict=True):
        assert_close(larger, 1000 * values)


def test_signed_scores_are_never_negative_weights(toys, qig_config):
    sites = toys()
    config = qig_config(score="signed_sum", reference="quantized")
    attribution, _ = _closed_form(
        sites.view("mlp_out"), references(sites, sites.view("mlp_out"), "quantized"), real_of(sites.view("mlp_out"))
    )
    assert any((a.sum(-1) < 0).any() for a in attribution)  # the test means something
    for values in QuantizationAwareIntegratedGradients(config).scores(sites.view("mlp_out")).values:
        assert (values >= 0).all()


def test_quantized_reference_of_integer_activations_is_token_quantized(toys, qig_config):
    sites = toys("w4a8")
    view = sites.view("mlp_out")
    found = QuantizationAwareIntegratedGradients(qig_config(reference="quantized")).scores(view).values
    rounded, _ = _closed_form(view, references(sites, view, "quantized"), real_of(view))
    unrounded, _ = _closed_form(view, [call.x for call in view.quantized_calls], real_of(view))
    torch.testing.assert_close(found[0], rounded[0].abs().mean(-1))
    assert not torch.allclose(found[0], unrounded[0].abs().mean(-1), rtol=1e-4)


def test_reference_equal_to_the_input_falls_back_to_uniform_on_the_record(toys, qig_config):
    sites = toys()
    sites.drifted = sites.inputs
    scores = QuantizationAwareIntegratedGradients(qig_config(reference="quantized")).scores(sites.view("mlp_in"))
    assert scores.fallback == "the reference equals the input"
    for values, kinds in zip(scores.values, sites.kinds, strict=True):
        assert torch.equal(values, (kinds != 0).float())


def test_nodes_are_doubled_until_the_integral_is_complete(toys, qig_config):
    view = toys().view("mlp_in")
    coarse = QuantizationAwareIntegratedGradients(qig_config(nodes=1, max_nodes=1)).scores(view)
    fine = QuantizationAwareIntegratedGradients(qig_config(nodes=1, max_nodes=256, tolerance=1e-3)).scores(view)
    assert (coarse.nodes, coarse.completeness > 1e-3) == (1, True)
    assert fine.nodes > 1 and np.log2(fine.nodes) % 1 == 0 and fine.completeness < coarse.completeness
    capped = QuantizationAwareIntegratedGradients(qig_config(nodes=2, max_nodes=7, tolerance=1e-12)).scores(view)
    assert capped.nodes == 4


@pytest.mark.parametrize("site", NONLINEAR)
def test_in_16_bits_nodes_are_not_doubled_for_what_is_rounding(toys, site):
    """There the residual has a floor that no number of nodes gets below."""
    sites, config = toys(), make_config(nodes=2, max_nodes=64, tolerance=1e-6)
    starts = [call.x for call in sites.view(site).quantized_calls]
    assert attribute(sites.view(site), config, starts, real_of(sites.view(site))).nodes == 64  # in float64
    sites.block.to(torch.bfloat16)
    for stream in (sites.inputs, sites.drifted):
        stream.update({width: [x.bfloat16() for x in xs] for width, xs in stream.items()})
    view = sites.view(site)
    starts, real = [call.x for call in view.quantized_calls], real_of(view)
    found = attribute(view, config, starts, real)
    assert found.residual > config.tolerance and found.nodes < 64
    fine = integrate(view, config, starts, real, 64)
    assert fine.residual > found.residual / 2  # all those nodes would not have paid
    for one, other in zip(found.values, fine.values, strict=True):
        assert_close(one.float(), other.float(), 0.1)


def test_the_whole_set_is_integrated_with_the_nodes_that_are_reported(toys):
    """The first micro-batch is tried alone; what it needed, or more, all have in the end."""
    sites = toys(lengths=((3,), (7, 7), (6,)))
    view = sites.view("attn_in")
    starts, real = [c.x for c in view.quantized_calls], [kinds != 0 for kinds in view.kinds]
    for tolerance in (0.3, 0.03, 1e-3):
        config = make_config(nodes=1, max_nodes=64, tolerance=tolerance)
        found = attribute(view, config, starts, real)
        again = integrate(view, config, starts, real, found.nodes)
        assert found.residual == again.residual and (found.residual <= tolerance or found.nodes == 64)
        assert all(torch.equal(one, other) for one, other in zip(found.values, again.values, strict=True))


def test_block_and_gradients_are_left_as_they_were(toys, qig_config):
    sites = toys()
    modules = dict(sites.block.named_modules())
    QuantizationAwareIntegratedGradients(qig_config()).scores(sites.view("mlp_in"))
    assert dict(sites.block.named_modules()) == modules
    assert all(not p.requires_grad and p.grad is None for p in sites.block.parameters())
    assert all(not x.requires_grad for x in sites.inputs[8])
