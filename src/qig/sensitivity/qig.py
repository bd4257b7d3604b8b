"""Quantization-aware integrated gradients (arXiv 2603.17809, section 4 of the method).

``QIG(x) = (x - x') * integral_0^1 dG/dx_a da`` with ``x_a = x' + a (x - x')`` and
``G(x_a) = sum_t mean_c |f(x_a, w) - f(x_a, w_q)|``. A token's score is the mean of ``|QIG|`` over channels, or their
signed sum (which keeps completeness; negative ones count as 0), clipped within the sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qig.about import About
from qig.blockwise.activations import Mapped
from qig.blockwise.site import SiteView
from qig.config.schema import QigSensitivity
from qig.data.tokens import TokenKind
from qig.quantization.grid import fake_quantize_activation
from qig.sensitivity.clipping import clip
from qig.sensitivity.estimator import Estimator, Scores
from qig.sensitivity.integral import attribute


class QuantizationAwareIntegratedGradients(Estimator):
    about = About(
        formula=(
            "mean_h |QIG_{t,h}|, QIG = (x - x') int_0^1 dG/dx_a da, G(x_a) = sum_t mean_c |f(x_a, w) - f(x_a, w_q)|"
        ),
        cost=(
            "linear sites 0 (closed form: 3 matrix products); else per node 2 forward and 2 backward, 2 "
            "nodes (attention from zero: 8), doubled or quadrupled up to 64 until complete, and 4 forward for "
            "completeness"
        ),
        needs="the quantized stream unless `reference: zero`",
        source="QIG, arXiv 2603.17809, section 4",
    )

    def __init__(self, config: QigSensitivity) -> None:
        super().__init__(config)
        self.needs_quantized_stream = config.reference != "zero"

    def scores(self, view: SiteView) -> Scores:
        real = view.real
        if view.ordinal < self.config.warmup_sites:
            content = [(kinds == TokenKind.VISION) | (kinds == TokenKind.ANSWER) for kinds in view.kinds]
            return Scores([mask.float() for mask in content], fallback="among the configured warm-up sites")
        references = self._references(view)
        if all(_equal(call.x, reference) for call, reference in zip(view.calls, references, strict=True)):
            return Scores([mask.float() for mask in real], fallback="the reference equals the input")
        found = attribute(view, self.config, references, real, self._token_scores)
        return Scores(found.values, completeness=found.residual, nodes=found.nodes)

    def _references(self, view: SiteView) -> Sequence[Tensor | None]:
        """x' per micro-batch, ``[batch, tokens, channels]``, made when it is asked for; ``None`` is zero."""
        if self.config.reference == "zero":
            return [None] * len(view.calls)
        grid, calls = view.setting.activations, view.quantized_calls
        if grid is None or self.config.reference == "stream":
            return Mapped(lambda i: calls[i].x, len(calls))
        return Mapped(lambda i: fake_quantize_activation(calls[i].x, grid), len(calls))

    def _token_scores(self, attribution: Tensor, real: Tensor) -> Tensor:
        signed = self.config.score == "signed_sum"
        scores = attribution.sum(-1) if signed else attribution.abs().mean(-1)
        return clip(scores, real, self.config.clip, self.config.clip_factor).clamp(min=0)


def _equal(x: Tensor, reference: Tensor | None) -> bool:
    return not bool(x.any()) if reference is None else torch.equal(x, reference)
