"""Token gradients: ``mean_c |dL/dy_{t,c}|`` of the supervised loss at the output of each half of the block."""

from __future__ import annotations

from qig.about import About
from qig.blockwise.site import SiteView
from qig.sensitivity.estimator import Estimator, Scores, WholeModel


class TokenGradient(Estimator):
    """y is the output of o_proj at the attention sites and of down_proj at the MLP sites, as in MBQ."""

    about = About(
        formula="mean_c |dL/dy_{t,c}|",
        cost="one forward and one backward pass of the whole model per micro-batch, for all sites",
        needs="answers to calibrate on",
        source="VLMQ, arXiv 2508.03351; QIG's Table 1",
    )

    def prepare(self, whole: WholeModel) -> None:
        self.gradients = whole.gradients()

    def scores(self, view: SiteView) -> Scores:
        return Scores(self.gradients[view.index][view.site.block_output])
