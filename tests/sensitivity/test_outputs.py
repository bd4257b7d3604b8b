"""The exact outputs of a site that attribution hands on to the search."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest
import torch

from qig.blockwise.capture import Call
from qig.sensitivity.qig import QuantizationAwareIntegratedGradients

MODULES = ("attn_in", "mlp_in")


@pytest.mark.parametrize("site", (*MODULES, "attn_out", "mlp_out"))
@pytest.mark.parametrize("reference", ("zero", "quantized"))
@pytest.mark.parametrize("target", ("error", "output", "error_vs_reference"))
@pytest.mark.parametrize("closed_form", (True, False))
def test_outputs_behind_attribution_are_those_of_the_module(toys, qig_config, site, reference, target, closed_form):
    view = toys().view(site)
    config = qig_config(reference=reference, target=target, closed_form=closed_form)
    QuantizationAwareIntegratedGradients(config).scores(view)
    for index, call in enumerate(view.calls):
        torch.testing.assert_close(view.outputs[index], call(view.f), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("site", MODULES)
def test_the_module_does_not_run_again_for_them(toys, qig_config, site):
    view = toys().view(site)
    QuantizationAwareIntegratedGradients(qig_config()).scores(view)
    runs = []
    view.f.register_forward_pre_hook(lambda *_: runs.append(1))
    assert len(list(view.outputs)) == len(view.calls) and not runs


def test_without_attribution_each_is_computed_once(toys):
    view = toys().view("mlp_in")
    runs = []
    view.f.register_forward_pre_hook(lambda *_: runs.append(1))
    first, second = list(view.outputs), list(view.outputs)
    assert len(runs) == len(view.calls)
    for a, b, call in zip(first, second, view.calls, strict=True):
        assert torch.equal(a, b) and torch.equal(a, call(view.f))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_16_bits_a_search_compares_with_the_layers_own_outputs(toys, qig_config, dtype):
    """Those of the path from x_q are sums of two rounded ones: a search would see errors of activations at 8 bits."""
    sites = toys()
    sites.block.to(dtype)
    view = sites.view("mlp_in")
    view = replace(view, calls=[Call(call.x.to(dtype), {}) for call in view.calls],
                   quantized_calls=[Call(call.x.to(dtype), {}) for call in view.quantized_calls])
    QuantizationAwareIntegratedGradients(qig_config(reference="quantized")).scores(view)
    assert all(torch.equal(found, call(view.f)) for found, call in zip(view.outputs, view.calls, strict=True))


def test_they_go_with_the_view(toys, qig_config):
    """At once: what a site holds is large, and Python looks for cycles when it likes."""
    view = toys().view("mlp_in")
    QuantizationAwareIntegratedGradients(qig_config()).scores(view)
    kept = weakref.ref(view.outputs[0])
    gc.disable()
    try:
        del view
        assert kept() is None
    finally:
        gc.enable()
