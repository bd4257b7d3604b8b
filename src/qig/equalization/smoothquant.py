"""SmoothQuant (arXiv 2211.10438, eq. 4): ``s = max|X|^a / max|W|^(1-a)`` turned to our convention."""

from __future__ import annotations

import torch
from torch import Tensor

from qig.about import About
from qig.blockwise.site import SiteView
from qig.equalization.equalizer import Equalizer, Scale, largest_activation
from qig.models.folding import shared

SMALLEST = 1e-5


class SmoothQuant(Equalizer):
    """No search and no token weights. The maximum of |W| is over all consumers of the site, per input channel."""

    about = About(
        formula="s = max|X|^a / max|W|^(1-a)",
        cost="0",
        needs="nothing",
        source="SmoothQuant, arXiv 2211.10438, eq. 4",
    )

    def scale(self, view: SiteView, weights: list[Tensor] | None) -> Scale:
        consumers = [view.block.get_submodule(name).weight.float() for name in view.site.consumers]
        largest_weight = torch.cat(consumers).abs().amax(0).clamp(min=SMALLEST)
        alpha = self.config.alpha
        value = largest_activation(view).clamp(min=SMALLEST) ** alpha / largest_weight ** (1 - alpha)
        return Scale(shared(view.block, view.site, value.clamp(min=SMALLEST)))
