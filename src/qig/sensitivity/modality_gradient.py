"""Modality gradients (MBQ, arXiv 2412.19509): one weight for vision tokens and one for answer tokens, per block."""

from __future__ import annotations

import torch
from torch import Tensor

from qig.about import About
from qig.blockwise.site import SiteView
from qig.config.schema import ModalityGradientSensitivity
from qig.data.tokens import TokenKind
from qig.errors import NonFiniteError
from qig.sensitivity.estimator import Estimator, Scores, WholeModel

MODALITIES = (TokenKind.VISION, TokenKind.ANSWER)


class ModalityGradient(Estimator):
    """``ratio = mean |dL/dy| over vision tokens / the same over answer tokens``, floored by its median over blocks.

    y is the output of o_proj at the attention sites and of down_proj at the MLP sites. Answer tokens weigh 1 and
    vision tokens ``ratio`` (``balance: per_token``), or both divided by their number in the corpus (``per_modality``);
    prompt and special tokens weigh 0.
    """

    about = About(
        formula=(
            "answer 1 / N_answer, vision max(r_b, median_b r_b) / N_vision (absolute errors: without N), others 0; "
            "r_b = mean_vision |dL/dy| / mean_answer |dL/dy| of block b"
        ),
        cost="one forward and one backward pass of the whole model per micro-batch, for all sites",
        needs="answers to calibrate on",
        source="MBQ, arXiv 2412.19509",
    )
    per_modality = True

    def __init__(self, config: ModalityGradientSensitivity) -> None:
        super().__init__(config)
        self.ratios: dict[str, Tensor] = {}
        self.counts: dict[TokenKind, int] = {}

    def prepare(self, whole: WholeModel) -> None:
        loaded, batches, device = whole.loaded, whole.batches, whole.activations.device
        names = sorted({site.block_output for site in loaded.architecture.sites})
        sums = {
            (name, kind): torch.zeros(len(loaded.blocks), dtype=torch.float64) for name in names for kind in MODALITIES
        }
        self.counts = dict.fromkeys(MODALITIES, 0)
        found = whole.gradients()
        for i, batch in enumerate(batches):
            where = {kind: (batch.kinds == kind).to(device) for kind in MODALITIES}
            for kind in MODALITIES:
                self.counts[kind] += int(where[kind].sum())
            for block, gradients in enumerate(found):
                for name, kind in sums:
                    sums[name, kind][block] += gradients[name][i][where[kind]].double().sum().cpu()
        vision, answer = (max(self.counts[kind], 1) for kind in MODALITIES)
        for name in names:
            ratio = (sums[name, TokenKind.VISION] / vision) / (sums[name, TokenKind.ANSWER] / answer)
            if not bool(ratio.isfinite().all()):
                block = int((~ratio.isfinite()).nonzero()[0])
                found = f"{float(sums[name, TokenKind.VISION][block])} / {float(sums[name, TokenKind.ANSWER][block])}"
                raise NonFiniteError("ratio of vision to answer gradients", found, block, name)
            self.ratios[name] = ratio.clamp(min=float(ratio.quantile(0.5)))

    def scores(self, view: SiteView) -> Scores:
        ratio = float(self.ratios[view.site.block_output][view.index])
        weight = {TokenKind.VISION: ratio, TokenKind.ANSWER: 1.0}
        if self.config.balance == "per_modality":
            weight = {kind: value / max(self.counts[kind], 1) for kind, value in weight.items()}
        return Scores([sum((kinds == kind).float() * value for kind, value in weight.items()) for kinds in view.kinds])
