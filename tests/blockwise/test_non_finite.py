"""A NaN put in at one place is refused there: the error names block, site and sample."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from qig.blockwise.activations import Activations
from qig.blockwise.run import BlockPass
from qig.equalization.grid_search import GridSearch
from qig.errors import NonFiniteError
from qig.models.loading import load
from qig.quantization.setting import Setting
from qig.sensitivity.qig import QuantizationAwareIntegratedGradients

CPU = torch.device("cpu")


@pytest.fixture
def case(configured, digit_samples, batches_of, tmp_path):
    """``case(*overrides)``: the pass, not yet run; its model, and the sample in the last row of its last batch."""

    def make(*overrides: str):
        config = configured(*overrides)
        loaded = load(config.model, CPU)
        batches = batches_of(loaded, digit_samples[:3])
        return BlockPass(loaded, batches, config, Activations(CPU), tmp_path), loaded, batches[-1].ids[-1]

    return make


def spoils(sample: str, block_pass, value=torch.nan):
    """A forward hook that puts ``value`` into the output of the sample's row, whenever its batch comes by."""
    batch = next(b for b in block_pass.batches if sample in b.ids)
    row = batch.ids.index(sample)

    def hook(_module, _args, output):
        if output.shape[:2] == batch.kinds.shape:
            output = output.clone()
            output[row, 0, 3] = value
        return output

    return hook


def refused(block_pass, message: str):
    with pytest.raises(NonFiniteError) as caught:
        block_pass.run()
    assert re.search(message, str(caught.value)), str(caught.value)
    return caught.value


def test_embedding(case):
    block_pass, loaded, sample = case("method=awq")
    loaded.model.get_input_embeddings().register_forward_hook(spoils(sample, block_pass))
    error = refused(block_pass, "non-finite embeddings at sample")
    assert (error.block, error.site, error.sample) == (None, None, sample)


@pytest.mark.parametrize(
    ("module", "site", "what"),
    [
        ("input_layernorm", "attn_in", r"inputs \(exact stream\)"),
        ("self_attn.v_proj", "attn_out", r"inputs \(exact stream\)"),
        ("post_attention_layernorm", "mlp_in", r"inputs \(exact stream\)"),
        ("mlp.up_proj", "mlp_out", r"inputs \(exact stream\)"),
        ("mlp.down_proj", None, r"hidden states behind the block \(exact stream\)"),
    ],
)
def test_activations_name_the_site_that_they_enter(case, module, site, what):
    block_pass, loaded, sample = case("method=gptq")
    loaded.blocks[1].get_submodule(module).register_forward_hook(spoils(sample, block_pass, torch.inf))
    error = refused(block_pass, what)
    assert (error.block, error.site, error.sample) == (1, site, sample)
    assert "0 NaN and 1 infinite" in error.found or site == "attn_out"  # attention spreads it


def test_quantized_stream(case, monkeypatch):
    block_pass, _, sample = case("method=qig", "sensitivity.reference=quantized")
    nearest = Setting.nearest  # what the quantized stream runs through

    def spoiled(self, linear):
        made = nearest(self, linear)
        made.register_forward_hook(spoils(sample, block_pass))
        return made

    monkeypatch.setattr(Setting, "nearest", spoiled)
    error = refused(block_pass, r"\(quantized stream\)")
    assert (error.block, error.site, error.sample) == (0, "mlp_in", sample)


def test_token_scores(case, monkeypatch):
    block_pass, _, sample = case("method=qig")
    scores = QuantizationAwareIntegratedGradients.scores

    def poisoned(self, view):
        found = scores(self, view)
        if (view.index, view.site.name) == (2, "mlp_in"):
            found.values[-1][-1, 0] = torch.nan
        return found

    monkeypatch.setattr(QuantizationAwareIntegratedGradients, "scores", poisoned)
    error = refused(block_pass, "token scores")
    assert (error.block, error.site, error.sample) == (2, "mlp_in", sample)


@pytest.mark.parametrize(("module", "site"), [("self_attn.o_proj", "self_attn.o_proj"), ("input_layernorm", "input")])
def test_gradients(case, module, site):
    block_pass, loaded, sample = case("method=mbq")
    hook = spoils(sample, block_pass)

    def on_forward(_module, _args, output):
        if output.requires_grad:
            output.register_hook(lambda gradient: hook(None, None, gradient))

    loaded.blocks[1].get_submodule(module).register_forward_hook(on_forward)
    error = refused(block_pass, "gradients")
    assert (error.block, error.site, error.sample) == (1, site, sample)


def test_gradients_behind_the_last_block(case):
    block_pass, loaded, _ = case("method=mbq")

    def on_forward(_module, args):
        if args[0].requires_grad:
            args[0].register_hook(spoils_gradient)

    def spoils_gradient(gradient):
        gradient = gradient.clone()
        gradient[:] = torch.nan
        return gradient

    loaded.model.get_output_embeddings().register_forward_pre_hook(on_forward)
    refused(block_pass, "gradients behind the last block")


def test_ratio_of_gradients_that_vanish(case, monkeypatch):
    block_pass, _, _ = case("method=mbq")
    from qig.sensitivity.shared_gradients import SharedGradients

    of = SharedGradients.of

    def vanished(*arguments):
        found = of(*arguments)
        for values in found[1]["mlp.down_proj"]:
            values.zero_()
        return found

    monkeypatch.setattr(SharedGradients, "of", vanished)
    error = refused(block_pass, "ratio of vision to answer gradients at block 1, mlp.down_proj: 0.0 / 0.0")
    assert error.block == 1


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_scales(case, monkeypatch, value):
    block_pass, _, _ = case("method=awq")
    scale = GridSearch.scale

    def poisoned(self, view, weights):
        found = scale(self, view, weights)
        bad = found.value.clone()
        bad[7] = value
        return replace(found, value=bad) if (view.index, view.site.name) == (1, "mlp_out") else found

    monkeypatch.setattr(GridSearch, "scale", poisoned)
    error = refused(block_pass, "non-finite scales at block 1, mlp_out: ")
    assert (error.block, error.site) == (1, "mlp_out")


def test_search_errors_of_all_exponents(case, monkeypatch):
    from qig.equalization.error import SiteError

    block_pass, _, _ = case("method=awq")
    monkeypatch.setattr(SiteError, "of_scale", lambda self, *_: float("nan"))
    refused(block_pass, "search errors at block 0, attn_in: all of 5 exponents")


def test_learned_scales(case, monkeypatch):
    from qig.equalization.error import SiteError

    block_pass, _, _ = case("method=awq", "equalization=learned", "equalization.steps=2")
    of_batch = SiteError.of_batch

    def poisoned(self, index, replacements):
        loss = of_batch(self, index, replacements)
        return loss * torch.nan if torch.is_grad_enabled() else loss

    monkeypatch.setattr(SiteError, "of_batch", poisoned)
    refused(block_pass, "gradients of the scales at step 0 at block 0, attn_in")


@pytest.mark.parametrize("method", ["rtn", "awq", "gptq"])
def test_weights_that_a_fold_or_a_load_has_spoiled(case, method):
    block_pass, loaded, _ = case(f"method={method}")
    if method == "rtn":
        block_pass.batches = []
    work = loaded.blocks[1].mlp.gate_proj.weight
    original = BlockPass._block

    def spoil(self, index, block, streams):
        if index == 1:
            if method == "gptq":  # captured while it was still sound
                block_pass.methods.rounder.round = spoiled_round(block_pass.methods.rounder.round)
            else:
                work[3, 4] = torch.inf
        return original(self, index, block, streams)

    def spoiled_round(round_):
        def call(linears, setting, inputs):
            if "mlp.gate_proj" in linears:
                work[3, 4] = torch.inf
            return round_(linears, setting, inputs)

        return call

    block_pass._block = spoil.__get__(block_pass)
    error = refused(block_pass, "non-finite")
    assert error.block == 1
    if method != "awq":  # there the site's outputs tell first
        assert error.site == "mlp_in" and "rounded weights" in error.what


@pytest.mark.parametrize(
    ("method", "what"), [("gptq", "Hessian"), ("gptaq", "asymmetry"), ("awq_clip", "second moment")]
)
def test_moments(case, monkeypatch, method, what):
    from qig.rounding import clipped, second_order

    block_pass, _, _ = case(f"method={method}")
    moment, calls = second_order.weighted_moment, []

    def poisoned(left, right, weights):
        calls.append(None)
        found = moment(left, right, weights)
        if len(calls) == (2 if what == "asymmetry" else 1):
            found[2, 3] = torch.nan
        return found

    monkeypatch.setattr(second_order, "weighted_moment", poisoned)
    monkeypatch.setattr(clipped, "weighted_moment", poisoned)
    error = refused(block_pass, what)
    assert (error.block, error.site) == (0, "attn_in")


def test_scaled_inputs_name_the_sample(case, monkeypatch):
    """A scale that is a number and still sends a quotient out of float32's range."""
    block_pass, _, _ = case("method=awq", "rounding=gptq", "rounding.stream=exact")
    scale = GridSearch.scale

    def tiny(self, view, weights):
        found = scale(self, view, weights)
        small = found.value.clone()
        small[0] = 1e-44
        return replace(found, value=small)

    monkeypatch.setattr(GridSearch, "scale", tiny)
    monkeypatch.setattr("qig.blockwise.block.fold", lambda *_: None)
    error = refused(block_pass, "scaled inputs at block 0, attn_in, sample")
    assert error.sample in block_pass.batches[0].ids
