"""What the quantization error is made of: weights alone or inputs, too; which linears; outputs without any error."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from oracles import attribution as oracle
from oracles import toy
from oracles.grid import fake_weight
from oracles.settings import make_config
from qig.config.schema import PerturbationSensitivity
from qig.sensitivity.integral import attribute, closed_form, integrate
from qig.sensitivity.path import Path
from qig.sensitivity.perturbation import Perturbation
from qig.sensitivity.qig import QuantizationAwareIntegratedGradients


def assert_close(found, expected):
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize("reference", ["zero", "quantized"])
@pytest.mark.parametrize("site", ["attn_in", "mlp_in"])
def test_where_inputs_are_integers_too_the_differentiable_branch_quantizes_weights_alone(toys, site, reference):
    sites = toys("w4a8")
    view, (f, _) = sites.view(site), toy.FUNCTIONS[site]
    starts = [torch.zeros_like(call.x) if reference == "zero" else drifted.x
              for call, drifted in zip(view.calls, view.quantized_calls, strict=True)]  # fmt: skip
    found = integrate(view, make_config(quadrature="midpoint"), starts, view.real, 64)
    for batch, row, x, x_q in sites.samples(site):
        start = torch.zeros_like(x) if reference == "zero" else x_q
        expected = oracle.by_midpoint(f, sites.weights, sites.quantized, x, start, 64)
        assert_close(found.values[batch][row, : len(x)], expected)


@pytest.mark.parametrize("site", ["attn_in", "mlp_in", "mlp_out"])
def test_integers_of_inputs_are_part_of_the_error_where_they_are_asked_for(toys, site):
    """And then no closed form applies, also to a linear."""
    sites = toys("w4a8")
    view, (f, _) = sites.view(site), toy.FUNCTIONS[site]
    config = make_config(quantized_activations=True)
    starts = [drifted.x for drifted in view.quantized_calls]
    assert attribute(view, config, starts, view.real).nodes > 0

    def error(y):
        rounded = oracle.with_integer_activations(site, y, sites.quantized)
        return (f(y, sites.weights) - rounded).abs().mean(-1).sum()

    for batch, row, x, x_q in sites.samples(site):
        change = Path(view, config, batch, starts[batch], view.real[batch]).change()[row]
        assert float(change) == pytest.approx(float(error(x) - error(x_q)), rel=1e-4)


def test_linears_outside_the_pattern_have_no_error(toys):
    sites = toys()
    sites.setting = replace(sites.setting, linears=re.compile(r"mlp\.up_proj"))
    view = sites.view("mlp_in")
    starts = [torch.zeros_like(call.x) for call in view.calls]
    found = integrate(view, make_config(quadrature="midpoint"), starts, view.real, 16)
    only = {**sites.weights, "up": sites.quantized["up"]}
    for batch, row, x, _ in sites.samples("mlp_in"):
        expected = oracle.by_midpoint(toy.mlp, sites.weights, only, x, torch.zeros_like(x), 16)
        assert_close(found.values[batch][row, : len(x)], expected)


def test_an_output_that_is_zero_along_the_whole_path_adds_nothing(toys):
    """As of a pruned row; 0 / 0 otherwise."""
    sites = toys()
    sites.block.mlp.down_proj.weight[2] = 0
    view, weight = sites.view("mlp_out"), toy.weights_of(sites.block)["down"]
    quantized = torch.from_numpy(fake_weight(weight.numpy(), 3, False, 4))
    found = closed_form(view, make_config(), [call.x for call in view.quantized_calls], view.real)
    for batch, row, x, x_q in sites.samples("mlp_out"):
        assert_close(found.values[batch][row, : len(x)], oracle.by_breakpoints(weight, quantized, x, x_q))


@pytest.mark.parametrize("reference", ["zero", "quantized"])
def test_without_its_closed_form_a_linear_is_integrated(toys, reference):
    sites = toys()
    view = sites.view("mlp_out")
    config = make_config(closed_form=False, quadrature="midpoint", nodes=16, max_nodes=16)
    starts = [None if reference == "zero" else call.x for call in view.quantized_calls]
    found = attribute(view, config, starts, view.real)
    assert found.nodes == 16
    for batch, row, x, x_q in sites.samples("mlp_out"):
        start = torch.zeros_like(x) if reference == "zero" else x_q
        f, _ = toy.FUNCTIONS["mlp_out"]
        expected = oracle.by_midpoint(f, sites.weights, sites.quantized, x, start, 16)
        assert_close(found.values[batch][row, : len(x)], expected)


def test_a_micro_batch_without_change_leaves_the_others_their_scores(toys):
    """That reference and input are the same is said of a site, not of a part of it."""
    sites = toys(lengths=((5, 5), (9, 4)))
    view = sites.view("mlp_in")
    view = replace(view, quantized_calls=[view.calls[0], view.quantized_calls[1]])
    for estimator in (QuantizationAwareIntegratedGradients(make_config(reference="quantized")), Perturbation(
        PerturbationSensitivity("perturbation", "token_special", "sample", "none", 0, 32)
    )):  # fmt: skip
        found = estimator.scores(view)
        assert found.fallback is None
        assert (found.values[0] == 0).all() and (found.values[1][view.real[1]] > 0).any()
