"""Synthetic outlier channels that leave the function unchanged.

Real language models have channels far larger than the rest; models trained from scratch in minutes do not, and
shrug off 3 bits. Multiplying a norm's channels by a lognormal s and dividing the next linears' columns by it puts a
small model into that regime without changing what it computes. Wherever such a model is shown it is called synthetic.
"""

from __future__ import annotations

import torch
from torch import nn

from qig.models.architectures import Site
from qig.models.folding import fold, foldable

SITES = ("attn_in", "mlp_in", "mlp_out")


def inject(blocks: nn.ModuleList, sites: tuple[Site, ...], sigma: float, seed: int) -> None:
    """Fold 1/s into each block at the norm sites and between up and down; ``log s ~ Normal(0, sigma)`` per channel."""
    if sigma == 0:
        return
    generator = torch.Generator().manual_seed(seed)
    for block in blocks:
        for site in sites:
            if site.name in SITES and foldable(block, site):
                channels = block.get_submodule(site.consumers[0]).in_features
                s = torch.exp(sigma * torch.randn(channels, generator=generator))
                fold(block, site, 1 / s)
