"""QIG at all sites of the shipped models, with their masks, positions and grouped heads, in float64."""

from __future__ import annotations

import copy

import captum.attr
import pytest
import torch
from torch import nn

from oracles.grid import fake_weight
from oracles.settings import make_config
from qig.blockwise.activations import Activations
from qig.blockwise.site import SiteView
from qig.blockwise.streams import Streams
from qig.quantization.setting import Setting
from qig.sensitivity.integral import closed_form, integrate

BLOCK, NODES = 2, 4


def in_double(batches):
    for batch in batches:
        batch.inputs.update({name: v.double() for name, v in batch.inputs.items() if v.is_floating_point()})
    return batches


def unpadded_call(loaded, batch, module: str):
    """Hidden states and other arguments of one module in an ordinary forward pass."""
    seen = []

    def keep(_module, args, kwargs):
        kwargs = dict(kwargs)
        seen.append((args[0] if args else kwargs.pop("hidden_states"), kwargs))

    handle = loaded.blocks[BLOCK].get_submodule(module).register_forward_pre_hook(keep, with_kwargs=True)
    with torch.no_grad():
        loaded.model(**batch.inputs, use_cache=False)
    handle.remove()
    return seen[0]


def quantized_copy(module: nn.Module, grid) -> nn.Module:
    result = copy.deepcopy(module)
    for linear in result.modules():
        if isinstance(linear, nn.Linear):
            fake = fake_weight(linear.weight.numpy(), grid.bits, grid.symmetric, grid.group_size)
            linear.weight.copy_(torch.from_numpy(fake))
    return result


def assert_close(found, expected, relative=1e-5):
    scale = float(expected.abs().max())
    assert scale > 0
    assert float((found - expected).abs().max()) <= relative * scale


@pytest.mark.parametrize("site", ["attn_in", "attn_out", "mlp_in", "mlp_out"])
def test_captum_sample_by_sample(compose, shipped, digit_samples, batches_of, site):
    shipped.model.double()
    setting = Setting.of(compose("quant=w3a16").quant)
    site = next(s for s in shipped.architecture.sites if s.name == site)
    padded = in_double(batches_of(shipped, digit_samples[:2], 10_000))
    assert len(padded) == 1 and not padded[0].real.all()
    streams = Streams(shipped, padded, Activations(torch.device("cpu")), False)
    for index in range(BLOCK):
        streams.advance(index, shipped.blocks[index], None)
    block = shipped.blocks[BLOCK]
    calls = streams.site_calls(BLOCK, block, [site], "exact")[0][site.name]
    view = SiteView(BLOCK, 0, block, site, setting, calls, None, streams.kinds, [b.ids for b in padded])
    start = [0.3 * call.x.roll(1, -1) for call in calls]  # a reference of its own for every token
    found = integrate(view, make_config(), start, [padded[0].real], NODES)
    closed = closed_form(view, make_config(), start, [padded[0].real]) if site.is_linear else None

    f = block.get_submodule(site.inspected)
    f_q = quantized_copy(f, setting.weights)
    for batch in in_double(batches_of(shipped, digit_samples[:2], 1)):
        row = padded[0].ids.index(batch.ids[0])
        x, kwargs = unpadded_call(shipped, batch, site.inspected)

        def scalar(y, kwargs=kwargs):
            error = first(f(y, **kwargs)) - first(f_q(y, **kwargs))
            return error.abs().mean(-1).sum(-1)

        method = captum.attr.IntegratedGradients(scalar)
        reference = 0.3 * x.roll(1, -1)
        expected = method.attribute(x, reference, n_steps=NODES, method="gausslegendre", internal_batch_size=1)[0]
        own = found.values[0][row]
        assert_close(own[: x.shape[1]], expected)
        assert (own[x.shape[1] :] == 0).all()
        if closed is not None:  # quadrature crosses the kinks of |.| between its nodes, the closed form meets them
            change = float(scalar(x) - scalar(reference))
            assert float(closed.values[0][row].sum()) == pytest.approx(change, rel=1e-6)
            fine = method.attribute(x, reference, n_steps=256, method="riemann_middle", internal_batch_size=1)[0]
            assert_close(closed.values[0][row][: x.shape[1]], fine, 0.02)


def first(output):
    return output[0] if isinstance(output, tuple) else output
