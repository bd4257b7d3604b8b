"""Leave-one-out perturbation against one forward pass a token."""

from __future__ import annotations

import pytest
import torch

from oracles import toy
from oracles.grid import fake_activation
from oracles.leave_one_out import leave_one_out
from qig.blockwise.activations import Activations
from qig.blockwise.capture import Call
from qig.blockwise.site import SiteView
from qig.blockwise.streams import Streams
from qig.config.schema import PerturbationSensitivity
from qig.quantization.grid import WeightGrid
from qig.quantization.setting import Setting
from qig.sensitivity.perturbation import Perturbation

SITES = ("attn_in", "attn_out", "mlp_in", "mlp_out")


def estimator(rows: int = 32) -> Perturbation:
    return Perturbation(PerturbationSensitivity("perturbation", "token_special", "sample", "none", 0, rows))


@pytest.mark.parametrize("rows", [1, 3, 32])
@pytest.mark.parametrize("setting", ["w3a16", "w4a8"])
@pytest.mark.parametrize("site", SITES)
def test_brute_force(toys, site, setting, rows):
    sites = toys(setting, lengths=((5, 5), (7, 4)))
    found = estimator(rows).scores(sites.view(site))
    f, _ = toy.FUNCTIONS[site]
    for batch, row, x, x_q in sites.samples(site):
        if setting == "w4a8":
            x_q = torch.from_numpy(fake_activation(x_q.numpy(), 8))
        expected = leave_one_out(lambda y: f(y, sites.weights), x, x_q)
        torch.testing.assert_close(found.values[batch][row, : len(x)].double(), expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("together", [1, 3, 4], ids="samples-{}".format)
def test_attention_of_every_architecture_with_its_masks_and_positions(
    fresh_model, digit_samples, batches_of, any_tiny, together
):
    """Three is also the number of Qwen2-VL's position axes."""
    loaded = fresh_model(any_tiny)
    loaded.model.double()
    site = loaded.architecture.sites[0]
    setting = Setting(WeightGrid(3, False, 128), None, None)
    drift = 0.1 * torch.randn(400, 128, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def view_of(budget):
        batches = batches_of(loaded, digit_samples[:together], budget)
        for batch in batches:
            batch.inputs.update({k: v.double() for k, v in batch.inputs.items() if v.is_floating_point()})
        streams = Streams(loaded, batches, Activations(torch.device("cpu")), False)
        calls = streams.site_calls(0, loaded.blocks[0], [site], "exact")[0]["attn_in"]
        moved = [Call(call.x + drift[: call.x.shape[1]], call.kwargs) for call in calls]
        ids = [batch.ids for batch in batches]
        return SiteView(0, 0, loaded.blocks[0], site, setting, calls, moved, streams.kinds, ids), ids

    padded, (ids,) = view_of(10_000)
    (found,) = estimator(40).scores(padded).values
    single, names = view_of(1)
    for call, moved, (name,) in zip(single.calls, single.quantized_calls, names, strict=True):
        chosen = slice(0, None, 9)  # some tokens of each sample are enough
        own = leave_one_out_at(call, single.f, moved.x[0], range(call.x.shape[1])[chosen])
        row = found[ids.index(name)]
        torch.testing.assert_close(row[: call.x.shape[1]][chosen], own, rtol=1e-5, atol=1e-9)
        assert (row[call.x.shape[1] :] == 0).all()
    assert together == 1 or not (padded.kinds[0] != 0).all()


@torch.no_grad()
def leave_one_out_at(call, module, x_q, tokens) -> torch.Tensor:
    exact, scores = call(module), []
    for token in tokens:
        changed = call.x.clone()
        changed[0, token] = x_q[token]
        scores.append((call(module, changed) - exact).abs().mean(-1).sum())
    return torch.stack(scores)


@pytest.mark.parametrize("site", ["attn_in", "mlp_in"])
def test_a_samples_scores_do_not_depend_on_its_company_or_padding(toys, site):
    together = toys(lengths=((7, 4),))
    scores = estimator().scores(together.view(site)).values[0]
    for xs in (together.inputs[8], together.drifted[8]):
        xs[0][1, 4:] = 1e3
    again = estimator(2).scores(together.view(site)).values[0]
    torch.testing.assert_close(again[1, :4], scores[1, :4], rtol=1e-6, atol=0)
    alone = toys(lengths=((4,),))
    alone.inputs[8][0], alone.drifted[8][0] = together.inputs[8][0][1:, :4], together.drifted[8][0][1:, :4]
    own = estimator().scores(alone.view(site)).values[0]
    torch.testing.assert_close(own[0], scores[1, :4], rtol=1e-6, atol=0)


def test_streams_that_agree_fall_back_to_uniform_on_the_record(toys):
    sites = toys()
    sites.drifted = sites.inputs
    found = estimator().scores(sites.view("attn_in"))
    assert found.fallback == "the quantized stream equals the exact one"
    assert all((values == 1).all() for values in found.values)


def test_bfloat16(toys):
    """The difference is taken in float32, so that only the module's own 16-bit arithmetic is lost."""
    sites = toys()
    view = sites.view("mlp_out")
    expected = estimator().scores(view).values
    sites.block.bfloat16()
    for xs in (sites.inputs, sites.drifted):
        for width, values in xs.items():
            xs[width] = [x.bfloat16() for x in values]
    found = estimator().scores(sites.view("mlp_out")).values
    for one, other, kinds in zip(found, expected, sites.kinds, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one[kinds != 0].double(), other[kinds != 0], rtol=0.02, atol=0)
