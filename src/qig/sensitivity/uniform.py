"""Every token weighs the same."""

from __future__ import annotations

import torch

from qig.about import About
from qig.blockwise.site import SiteView
from qig.sensitivity.estimator import Estimator, Scores


class Uniform(Estimator):
    about = About(
        formula="1",
        cost="0",
        needs="nothing",
        source="AWQ, arXiv 2306.00978 (no token weights)",
    )

    def scores(self, view: SiteView) -> Scores:
        return Scores([torch.ones(kinds.shape, device=kinds.device) for kinds in view.kinds])
