"""Every token weighs the same."""

from __future__ import annotations

import torch

from qig.sensitivity.estimator import Estimator, Scores, SiteView


class Uniform(Estimator):
    def scores(self, view: SiteView) -> Scores:
        return Scores([torch.ones(kinds.shape, device=kinds.device) for kinds in view.kinds])
