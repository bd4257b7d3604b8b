"""Folding a scale, and injecting outliers, leave what the model computes unchanged in full precision."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from oracles.calls import logits_of
from qig.config.schema import Model, Outliers
from qig.errors import ModelError
from qig.models.architectures import LLAMA_SITES
from qig.models.folding import fold, foldable, shared
from qig.models.loading import load
from qig.models.outliers import inject, outlier_scales

SITES = {site.name: site for site in LLAMA_SITES}


def scale_for(block, site, seed=0) -> torch.Tensor:
    channels = block.get_submodule(site.consumers[0]).in_features
    return torch.exp(torch.randn(channels, generator=torch.Generator().manual_seed(seed)))


def assert_same_function(before, loaded, batches) -> None:
    for was, now, batch in zip(before, logits_of(loaded, batches), batches, strict=True):
        real = batch.real
        assert float((was[real] - now[real]).abs().max()) < 1e-5 * float(was[real].abs().max())


@pytest.mark.parametrize("site", ["attn_in", "mlp_in", "mlp_out"])
def test_every_site_on_every_architecture(fresh_model, digit_samples, batches_of, any_tiny, site):
    loaded = fresh_model(any_tiny)
    batches = batches_of(loaded, digit_samples[:3])
    before = logits_of(loaded, batches)
    for index, block in enumerate(loaded.blocks):
        untouched = copy.deepcopy(block)
        fold(block, SITES[site], scale_for(block, SITES[site], index))
        for name in (SITES[site].producer, *SITES[site].consumers):
            was, now = untouched.get_submodule(name).weight, block.get_submodule(name).weight
            assert not torch.allclose(was, now, rtol=0.1)
    assert_same_function(before, loaded, batches)


class OneMore(nn.RMSNorm):
    """A norm that multiplies by 1 + weight."""

    def forward(self, x):
        return functional.rms_norm(x, self.normalized_shape, 1 + self.weight, self.eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_norm_that_is_not_multiplied_by_its_weight_is_refused(fresh_model, dtype):
    block = fresh_model("tiny_qwen2_vl").blocks[0].to(dtype)
    site = SITES["mlp_in"]
    scale = scale_for(block, site)
    for norm in (nn.RMSNorm(len(scale)), nn.LayerNorm(len(scale))):  # these are
        for parameter in norm.parameters():
            nn.init.normal_(parameter, 1)
        block.set_submodule(site.producer, norm.to(dtype))
        fold(block, site, scale)
    block.set_submodule(site.producer, OneMore(len(scale)).to(dtype))
    with pytest.raises(ModelError, match=r"post_attention_layernorm \(OneMore\)"):
        fold(block, site, scale)


def test_attn_out_where_every_query_head_has_its_own_values(fresh_model, digit_samples, batches_of, any_tiny):
    loaded = fresh_model(any_tiny, key_value_heads=4)
    batches = batches_of(loaded, digit_samples[:3])
    before = logits_of(loaded, batches)
    for block in loaded.blocks:
        assert foldable(block, SITES["attn_out"])
        assert any_tiny != "tiny_qwen2_vl" or block.self_attn.v_proj.bias is not None  # its bias is divided too
        fold(block, SITES["attn_out"], scale_for(block, SITES["attn_out"]))
    assert_same_function(before, loaded, batches)


def test_grouped_query_attention_has_no_attn_out(fresh_model, any_tiny):
    block = fresh_model(any_tiny).blocks[0]
    assert {name for name, site in SITES.items() if foldable(block, site)} == {"attn_in", "mlp_in", "mlp_out"}


@pytest.mark.parametrize("groups", [1, 2])
def test_attn_out_with_a_scale_shared_by_each_group(fresh_model, digit_samples, batches_of, any_tiny, groups):
    loaded = fresh_model(any_tiny, key_value_heads=groups)
    batches = batches_of(loaded, digit_samples[:3])
    before = logits_of(loaded, batches)
    for index, block in enumerate(loaded.blocks):
        was = block.self_attn.v_proj.weight.clone()
        fold(block, SITES["attn_out"], shared(block, SITES["attn_out"], scale_for(block, SITES["attn_out"], index)))
        assert not torch.allclose(was, block.self_attn.v_proj.weight, rtol=0.1)
    assert_same_function(before, loaded, batches)


def test_all_sites_at_once_with_all_scales(fresh_model, digit_samples, batches_of, any_tiny):
    loaded = fresh_model(any_tiny, key_value_heads=4)
    batches = batches_of(loaded, digit_samples[:3])
    before = logits_of(loaded, batches)
    for block in loaded.blocks:
        for number, site in enumerate(LLAMA_SITES):
            fold(block, site, scale_for(block, site, number))
    assert_same_function(before, loaded, batches)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (torch.ones(7), r"mlp_in: scale of shape \(7,\)"),
        (torch.zeros(128), "positive and finite"),
        (-torch.ones(128), "positive and finite"),
        (torch.full((128,), float("nan")), "positive and finite"),
        (torch.full((128,), float("inf")), "positive and finite"),
    ],
)
def test_scales_that_are_no_scales(fresh_model, scale, message):
    block = fresh_model("tiny_internvl").blocks[0]
    before = copy.deepcopy(block.state_dict())
    with pytest.raises(ValueError, match=message):
        fold(block, SITES["mlp_in"], scale)
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())


def inject_all(blocks, sigma, seed):
    for block, scales in zip(blocks, outlier_scales(blocks, LLAMA_SITES, sigma, seed), strict=True):
        inject(block, LLAMA_SITES, scales)


def test_outliers_change_the_weights_and_not_the_function(fresh_model, digit_samples, batches_of, any_tiny):
    loaded = fresh_model(any_tiny)
    batches = batches_of(loaded, digit_samples[:3])
    before, norms = logits_of(loaded, batches), [block.input_layernorm.weight.clone() for block in loaded.blocks]
    inject_all(loaded.blocks, 0.75, 0)
    assert_same_function(before, loaded, batches)
    spread = torch.cat([torch.log(b.input_layernorm.weight / n) for b, n in zip(loaded.blocks, norms, strict=True)])
    assert float(spread.std()) == pytest.approx(0.75, rel=0.2)
    assert not torch.equal(spread[:128], spread[128:])  # each block has its own channels


def test_outliers_depend_on_their_seed_alone(fresh_model):
    def injected(sigma, seed):
        loaded = fresh_model("tiny_internvl")
        inject_all(loaded.blocks, sigma, seed)
        return loaded.blocks.state_dict()

    def same(one, other):
        return all(torch.equal(value, other[name]) for name, value in one.items())

    assert same(injected(0.5, 1), injected(0.5, 1))
    assert not same(injected(0.5, 1), injected(0.5, 2))
    assert same(injected(0.0, 1), fresh_model("tiny_internvl").blocks.state_dict())


def test_outliers_are_those_that_the_configured_seed_draws_block_by_block(any_tiny):
    """Norms and up_proj are multiplied by exp(sigma n), what reads them divided."""
    path, cpu, sigma = f"embedded:{any_tiny}", torch.device("cpu"), 0.65
    plain, loaded = (load(Model(any_tiny, path, "float32", Outliers(s, 3)), cpu).blocks for s in (0.0, sigma))
    draw = torch.Generator().manual_seed(3)
    for before, after in zip(plain, loaded, strict=True):
        old = before.state_dict()
        widths = (old["mlp.up_proj.weight"].shape[1],) * 2 + (old["mlp.down_proj.weight"].shape[1],)
        attention, mlp, inner = (torch.exp(sigma * torch.randn(width, generator=draw)) for width in widths)
        expected = {f"self_attn.{name}_proj.weight": old[f"self_attn.{name}_proj.weight"] / attention for name in "qkv"}
        expected |= {
            "input_layernorm.weight": old["input_layernorm.weight"] * attention,
            "post_attention_layernorm.weight": old["post_attention_layernorm.weight"] * mlp,
            "mlp.gate_proj.weight": old["mlp.gate_proj.weight"] / mlp,
            "mlp.up_proj.weight": old["mlp.up_proj.weight"] / mlp * inner[:, None],
            "mlp.down_proj.weight": old["mlp.down_proj.weight"] / inner,
        }
        for name, value in after.state_dict().items():
            torch.testing.assert_close(value, expected.get(name, old[name]), rtol=1e-5, atol=0)


def test_outliers_of_the_shipped_models_change_no_logit(shipped, digit_samples, batches_of):
    batches = batches_of(shipped, digit_samples[:2])
    before = logits_of(shipped, batches)
    inject_all(shipped.blocks, 0.75, 0)
    assert_same_function(before, shipped, batches)
