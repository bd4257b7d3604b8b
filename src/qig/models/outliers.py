"""Synthetic outlier channels that leave the function unchanged.

Real language models have channels far larger than the rest; models trained from scratch in minutes do not, and
shrug off 3 bits. Multiplying a norm's channels by a lognormal s and dividing the next linears' columns by it puts a
small model into that regime without changing what it computes. Wherever such a model is shown it is called synthetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from qig.models.architectures import Site
from qig.models.folding import fold, foldable

SITES = ("attn_in", "mlp_in", "mlp_out")


def outlier_scales(
    blocks: nn.ModuleList, sites: Sequence[Site], sigma: float, seed: int
) -> list[dict[str, Tensor]]:
    """One s ``[channels]`` a site for each block, ``log s ~ Normal(0, sigma)``; nothing where sigma is 0.

    Only the shapes of the blocks matter, so that they may be on the meta device.
    """
    generator = torch.Generator().manual_seed(seed)
    scales: list[dict[str, Tensor]] = [{} for _ in blocks]
    for block, found in zip(blocks, scales, strict=True):
        for site in sites if sigma else ():
            if site.name in SITES and foldable(block, site):
                channels = block.get_submodule(site.consumers[0]).in_features
                found[site.name] = torch.exp(sigma * torch.randn(channels, generator=generator))
    return scales


def inject(block: nn.Module, sites: Sequence[Site], scales: Mapping[str, Tensor]) -> None:
    """Fold 1/s into one block, in place: at the norm sites and between up and down."""
    for site in sites:
        if site.name in scales:
            fold(block, site, 1 / scales[site.name])
