"""Channel-wise equalization leaves the full-precision function as it is, for any scales at any sites in any order."""

from __future__ import annotations

import copy

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from oracles import toy
from qig.models.architectures import LLAMA_SITES
from qig.models.folding import fold


def outputs(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The block by hand: both halves behind their norms, with residuals."""
    weights = toy.weights_of(block)

    def norm(y, module):
        return y / (y.square().mean(-1, keepdim=True) + torch.finfo(y.dtype).eps).sqrt() * module.weight

    x = x + toy.attention(norm(x, block.input_layernorm), weights)
    return x + toy.mlp(norm(x, block.post_attention_layernorm), weights)


@given(st.integers(0, 10_000), st.permutations(LLAMA_SITES), st.floats(0.1, 2))
def test_any_scales_at_any_sites_in_any_order(seed, sites, spread):
    generator = torch.Generator().manual_seed(seed)
    block = toy.Block(seed=seed % 7)
    x = torch.randn(2, 5, 8, generator=generator, dtype=torch.float64)
    before, original = outputs(block, x), copy.deepcopy(block)
    for site in sites:
        channels = block.get_submodule(site.consumers[0]).in_features
        fold(block, site, torch.exp(spread * torch.randn(channels, generator=generator)))
    torch.testing.assert_close(outputs(block, x), before, rtol=1e-4, atol=1e-5 * float(before.abs().max()))
    changed = [not torch.equal(a, b) for a, b in zip(block.parameters(), original.parameters(), strict=True)]
    assert sum(changed) == len(changed) - 2  # all but the biases of q and k, which no scale passes through
