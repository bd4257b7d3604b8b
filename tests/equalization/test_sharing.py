"""One scale for the query heads of a group, and the activation statistic under token weights."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from oracles.calls import logits_of
from qig.blockwise.activations import Activations
from qig.blockwise.site import SiteView
from qig.blockwise.streams import Streams
from qig.config.schema import GridEqualization, LearnedEqualization, SmoothQuantEqualization
from qig.equalization.equalizer import mean_activation
from qig.equalization.grid_search import GridSearch, power_scale
from qig.equalization.learned import LearnedScales
from qig.equalization.smoothquant import SmoothQuant
from qig.models.architectures import LLAMA_SITES
from qig.models.folding import fold, foldable, shared
from qig.quantization.grid import WeightGrid
from qig.quantization.setting import Setting

SITES = {site.name: site for site in LLAMA_SITES}
ATTN_OUT = SITES["attn_out"]
SETTING = Setting(WeightGrid(3, False, 128), None, None)
METHODS = {
    "grid": GridSearch(GridEqualization("grid", ["attn_out"], True, 4, 0.25, "module", "mse", "exact", "mean", False)),
    "learned": LearnedScales(
        LearnedEqualization("learned", ["attn_out"], True, 4, 0.25, "module", "mse", "exact", "mean", False, 3, 0.05)
    ),
    "smoothquant": SmoothQuant(SmoothQuantEqualization("smoothquant", ["attn_out"], True, 0.5)),
}


class Everything:
    """A pattern that every linear's name matches."""

    @staticmethod
    def fullmatch(_name: str) -> bool:
        return True


def view_of(loaded, batches, site, index=0):
    streams = Streams(loaded, batches, Activations(torch.device("cpu")), False)
    calls = streams.site_calls(index, loaded.blocks[index], [site], "exact")[0][site.name]
    setting = Setting(SETTING.weights, None, Everything())
    view = SiteView(index, 0, loaded.blocks[index], site, setting, calls, None, streams.kinds, [b.ids for b in batches])
    generator = torch.Generator().manual_seed(4)
    return view, [torch.rand(k.shape, generator=generator) ** 3 * (k != 0) for k in streams.kinds]


@pytest.mark.parametrize("name", METHODS)
def test_logits_stay_and_the_scale_is_constant_within_a_group(shipped, digit_samples, batches_of, name):
    batches = batches_of(shipped, digit_samples[:2])
    before = logits_of(shipped, batches)
    text = shipped.model.config.text_config
    groups = text.num_attention_heads // text.num_key_value_heads
    assert groups > 1
    for index in (0, 3):
        block = shipped.blocks[index]
        assert not foldable(block, ATTN_OUT) and foldable(block, ATTN_OUT, share=True)
        spread = torch.exp(1.5 * torch.randn(128, generator=torch.Generator().manual_seed(index)))
        fold(block, ATTN_OUT, shared(block, ATTN_OUT, spread))  # channels that differ, so that scales pay
        view, weights = view_of(shipped, batches, ATTN_OUT, index)
        scale = METHODS[name].scale(view, weights).value
        heads = scale.view(text.num_attention_heads, -1)
        for head in range(text.num_attention_heads):
            first = head // groups * groups
            torch.testing.assert_close(heads[head], heads[first], rtol=1e-6, atol=0)
        assert float(heads.std(1).min()) > 0 and not torch.allclose(heads[0], heads[groups], rtol=1e-2)
        was = shipped.blocks[index].self_attn.v_proj.weight.clone()
        fold(shipped.blocks[index], ATTN_OUT, scale)
        assert not torch.allclose(was, shipped.blocks[index].self_attn.v_proj.weight, rtol=1e-2)
    for one, other, batch in zip(before, logits_of(shipped, batches), batches, strict=True):
        assert float((one - other)[batch.real].abs().max()) < 1e-5 * float(one[batch.real].abs().max())


@pytest.mark.parametrize("groups", [1, 2])
def test_sharing_is_the_mean_over_the_heads_of_a_group(fresh_model, groups):
    """Four query heads; with a single group of four, neither number can stand for the other."""
    block = fresh_model("tiny_qwen2_vl", key_value_heads=groups).blocks[0]
    values, size = torch.rand(128, generator=torch.Generator().manual_seed(0)), 4 // groups
    found = shared(block, ATTN_OUT, values)
    assert found.shape == values.shape
    for key_value_head in range(groups):
        for channel in range(32):
            heads = [key_value_head * size + i for i in range(size)]
            mean = sum(float(values[h * 32 + channel]) for h in heads) / size
            assert [float(found[h * 32 + channel]) for h in heads] == pytest.approx([mean] * size, rel=1e-6)
    assert shared(block, SITES["mlp_in"], values) is values
    wide = fresh_model("tiny_qwen2_vl", key_value_heads=4).blocks[0]
    assert shared(wide, ATTN_OUT, values) is values


def test_a_scale_of_its_own_for_every_head_is_refused(fresh_model):
    block = fresh_model("tiny_qwen2_vl").blocks[0]
    before = copy.deepcopy(block.state_dict())
    with pytest.raises(ValueError, match="need a scale shared"):
        fold(block, ATTN_OUT, torch.linspace(0.5, 2, 128))
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())


def test_mlp_sites_never_share(fresh_model):
    """A producer that is too narrow for another reason than grouped heads is not foldable."""
    block = fresh_model("tiny_internvl").blocks[0]
    block.mlp.up_proj = torch.nn.Linear(128, 192)
    assert not foldable(block, SITES["mlp_out"], share=True)


@pytest.mark.parametrize("alpha", [0.3, 0.5])
def test_smoothquants_formula_with_sharing(shipped, digit_samples, batches_of, alpha):
    batches = batches_of(shipped, digit_samples[:2])
    view, _ = view_of(shipped, batches, ATTN_OUT, 1)
    config = SmoothQuantEqualization("smoothquant", ["attn_out"], True, alpha)
    found = SmoothQuant(config).scale(view, None).value.numpy()
    x = np.concatenate([c.x[k != 0].numpy() for c, k in zip(view.calls, view.kinds, strict=True)])
    w = view.block.self_attn.o_proj.weight.numpy()
    plain = np.array([np.abs(x[:, j]).max() ** alpha / np.abs(w[:, j]).max() ** (1 - alpha) for j in range(128)])
    for key_value_head in range(2):
        for channel in range(32):
            where = [(key_value_head * 2 + i) * 32 + channel for i in range(2)]
            np.testing.assert_allclose(found[where], plain[where].mean(), rtol=1e-5)


def test_weighted_statistic_by_brute_force(shipped, digit_samples, batches_of):
    batches = batches_of(shipped, digit_samples[:3])
    view, weights = view_of(shipped, batches, SITES["mlp_in"], 2)
    for given, name in ((weights, "weighted"), (None, "mean")):
        total, mass = np.zeros(128), 0.0
        for i, (call, kinds) in enumerate(zip(view.calls, view.kinds, strict=True)):
            for row in range(len(kinds)):
                for token in range(kinds.shape[1]):
                    if kinds[row, token] == 0:
                        continue
                    weight = 1.0 if given is None else float(weights[i][row, token])
                    total += weight * np.abs(call.x[row, token].numpy().astype(np.float64))
                    mass += weight
        np.testing.assert_allclose(mean_activation(view, given).numpy(), total / mass, rtol=1e-5)
        search = GridSearch(GridEqualization("grid", [], False, 4, 0.25, "module", "mse", "exact", name))
        found = search.scale(view, weights)
        expected = power_scale(torch.from_numpy(total / mass), found.exponent)
        torch.testing.assert_close(found.value, expected, rtol=1e-5, atol=0)
    padded = [w.clone() for w in weights]
    for w, kinds in zip(padded, view.kinds, strict=True):
        w[kinds == 0] = 1e6
    torch.testing.assert_close(mean_activation(view, padded), mean_activation(view, weights))


def test_a_step_moves_every_channel_of_a_group_as_far_as_the_rate(shipped, digit_samples, batches_of):
    """Adam's first step is the rate in each coordinate; were channels learned apart and shared afterwards, it would be
    less where they disagree."""
    rate, improved = 0.004, 0
    search = ["attn_out"], True, 4, 0.25, "module", "mse", "exact", "mean", False
    config = LearnedEqualization("learned", *search, 1, rate)
    for index in range(4):
        block = shipped.blocks[index]
        spread = torch.exp(1.5 * torch.randn(128, generator=torch.Generator().manual_seed(index)))
        fold(block, ATTN_OUT, shared(block, ATTN_OUT, spread))
        view, weights = view_of(shipped, batches_of(shipped, digit_samples[:2]), ATTN_OUT, index)
        found, start = LearnedScales(config).scale(view, weights), GridSearch(config).scale(view, weights).value
        if found.learned_loss < min(found.losses):
            improved += 1
            step = (found.value / start).log().abs()
            torch.testing.assert_close(step, torch.full_like(step, rate), rtol=1e-2, atol=0)
    assert improved
