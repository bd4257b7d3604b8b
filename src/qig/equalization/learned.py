"""Scales learned per channel by gradient, from the grid's result, under the same weighted error.

Rounding is passed straight through; scale and zero point of each group are differentiated. The best scales seen, by
the true error, are kept, so that the result is never worse than the grid's.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qig.about import About
from qig.blockwise.site import SiteView
from qig.equalization.equalizer import Scale
from qig.equalization.grid_search import GridSearch, finite
from qig.finite import located, refuse_non_finite
from qig.models.folding import shared


class LearnedScales(GridSearch):
    about = About(
        formula=(
            "s = argmin of sum_{n,t} lambda err by Adam on log s, rounding straight through, from the "
            "grid's result; the best seen is kept"
        ),
        cost="the grid's, and per step (30) 2 forward and 1 backward",
        needs="token weights; the quantized stream unless `stream: exact`",
        source="this project; scales learned by gradient as in OmniQuant, arXiv 2308.13137",
    )

    def scale(self, view: SiteView, weights: list[Tensor] | None) -> Scale:
        error = self.site_error(view, weights)
        view = error.view
        start = self.search(view, error)
        best, least = start.value, min(map(finite, start.losses))
        logarithm = best.log().clone().requires_grad_()
        optimizer = torch.optim.Adam([logarithm], lr=self.config.rate)
        unit = least if least > 0 else 1.0  # Adam's epsilon must not depend on how small the site's outputs are
        for step in range(self.config.steps):
            optimizer.zero_grad()
            for index in range(len(error.exact)):
                with torch.enable_grad():
                    candidate = shared(view.block, view.site, logarithm.exp())
                    replacements = {
                        name: view.setting.equalized_through(linear, candidate)
                        for name, linear in error.linears.items()
                    }
                    (error.of_batch(index, replacements) / unit).backward()
            with located(view.index, view.site.name):
                refuse_non_finite(f"gradients of the scales at step {step}", logarithm.grad)
            optimizer.step()
            candidate = shared(view.block, view.site, logarithm.detach().exp())
            loss = error.of_scale(candidate)
            if loss < least:
                best, least = candidate, loss
        return replace(start, value=best, learned_loss=least)
