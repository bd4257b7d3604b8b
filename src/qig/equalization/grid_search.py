"""The grid search of AWQ (arXiv 2306.00978) under token weights, as MBQ and QIG use it.

``s = mean|x|^r``, clamped at 1e-4 and divided by ``sqrt(max s * min s)``; the r with the least
``sum_{n,t} lambda_{n,t} err_{n,t}`` wins, where err is the token's mean error over output channels.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace

from torch import Tensor

from qig.about import About
from qig.blockwise.site import SiteView
from qig.equalization.equalizer import Equalizer, Scale, mean_activation
from qig.equalization.error import SiteError
from qig.errors import NonFiniteError
from qig.models.folding import shared

SMALLEST = 1e-4
log = logging.getLogger(__name__)


class GridSearch(Equalizer):
    about = About(
        formula=(
            "s = argmin over r of sum_{n,t} lambda err; s_r = mean|x|^r / sqrt(max s min s), r = 0, 0.05, .., 0.95"
        ),
        cost="1 forward, and at most 1 per grid point (20)",
        needs="token weights; the quantized stream unless `stream: exact`",
        source="AWQ, arXiv 2306.00978; weighted as in MBQ and QIG",
    )
    needs_weights = True

    @property
    def needs_quantized_stream(self) -> bool:
        return self.config.stream != "exact"

    def scale(self, view: SiteView, weights: list[Tensor] | None) -> Scale:
        error = self.site_error(view, weights)
        return self.search(error.view, error)

    def site_error(self, view: SiteView, weights: list[Tensor]) -> SiteError:
        """The error on the configured stream; ``both``: f with quantized weights on x_q beside the exact f on x."""
        tried = replace(view, calls=view.quantized_calls) if self.needs_quantized_stream else view
        return SiteError(tried, self.config, weights, view if self.config.stream == "both" else tried)

    def search(self, view: SiteView, error: SiteError) -> Scale:
        """The best power of the activation statistic; one whose error is not a number is out, and the log says so.

        Raises:
            NonFiniteError: no exponent gives a finite error, or the exact output is not a number.
        """
        statistic = mean_activation(view, error.weights if self.config.statistic == "weighted" else None)
        exponents = [round(i * self.config.step, 10) for i in range(self.config.points)]
        candidates = [shared(view.block, view.site, power_scale(statistic, r)) for r in exponents]
        losses = self._losses(error, candidates)
        best = min(range(len(losses)), key=lambda i: finite(losses[i]))
        lost = [r for r, loss in zip(exponents, losses, strict=True) if loss is not None and not math.isfinite(loss)]
        if not math.isfinite(finite(losses[best])):
            raise NonFiniteError("search errors", f"all of {len(losses)} exponents", view.index, view.site.name)
        if lost:
            log.warning(
                "non-finite search errors at block %d, %s: exponents %s are out", view.index, view.site.name, lost
            )
        return Scale(candidates[best], exponents, losses, exponents[best])

    def _losses(self, error: SiteError, candidates: list[Tensor]) -> list[float | None]:
        """The error of every candidate; with ``early_stop`` ``None`` for one that cannot be the best.

        Errors only grow from one micro-batch to the next, so that a candidate whose error on some of them exceeds
        another's on all of them is out. The first micro-batch says in which order to try; no chosen scale changes.
        """
        rest = range(1, len(error.exact))
        if not self.config.early_stop or not rest:
            return [error.of_scale(candidate) for candidate in candidates]
        begun = [error.of_scale(candidate, range(1)) for candidate in candidates]
        losses: list[float | None] = [None] * len(candidates)
        least = math.inf
        for i in sorted(range(len(candidates)), key=lambda i: finite(begun[i])):
            loss = begun[i] if begun[i] > least else error.of_scale(candidates[i], rest, begun[i], least)
            if not loss > least:
                losses[i] = loss
                least = min(least, finite(loss))
        return losses


def finite(loss: float | None) -> float:
    """A search error, or infinity where it is not a number or was given up."""
    return loss if loss is not None and math.isfinite(loss) else math.inf


def power_scale(statistic: Tensor, exponent: float) -> Tensor:
    """``statistic^r`` clamped at 1e-4, with the geometric mean of its extremes at 1; ``[channels]`` float32."""
    scale = (statistic.float() ** exponent).clamp(min=SMALLEST)
    return scale / (scale.max() * scale.min()).sqrt()
