"""The grid search of AWQ (arXiv 2306.00978) under token weights, as MBQ and QIG use it.

``s = mean|x|^r``, clamped at 1e-4 and divided by ``sqrt(max s * min s)``; the r with the least
``sum_{n,t} lambda_{n,t} err_{n,t}`` wins, where err is the token's mean error over output channels.
"""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor

from qig.about import About
from qig.equalization.equalizer import Equalizer, Scale, mean_activation
from qig.equalization.error import SiteError
from qig.errors import QigError
from qig.models.folding import shared
from qig.sensitivity.estimator import SiteView

SMALLEST = 1e-4


class GridSearch(Equalizer):
    about = About(
        formula=(
            "s = argmin over r of sum_{n,t} lambda err; s_r = mean|x|^r / sqrt(max s min s), r = 0, "
            "0.05, .., 0.95"
        ),
        cost="1 forward, and 1 per grid point (20)",
        needs="token weights; the quantized stream if `stream: quantized`",
        source="AWQ, arXiv 2306.00978; weighted as in MBQ and QIG",
    )
    needs_weights = True

    @property
    def needs_quantized_stream(self) -> bool:
        return self.config.stream == "quantized"

    def scale(self, view: SiteView, weights: list[Tensor] | None) -> Scale:
        view = self.on_stream(view)
        return self.search(view, SiteError(view, self.config, weights))

    def on_stream(self, view: SiteView) -> SiteView:
        """The view with the calls of the stream on which errors are measured."""
        return replace(view, calls=view.quantized_calls) if self.config.stream == "quantized" else view

    def search(self, view: SiteView, error: SiteError) -> Scale:
        """The best power of the activation statistic.

        Raises:
            QigError: no exponent gives a finite error.
        """
        statistic = mean_activation(view, error.weights if self.config.statistic == "weighted" else None)
        exponents = [round(i * self.config.step, 10) for i in range(self.config.points)]
        candidates = [shared(view.block, view.site, power_scale(statistic, r)) for r in exponents]
        losses = [error.of_scale(candidate) for candidate in candidates]
        best = min(range(len(losses)), key=lambda i: losses[i] if math.isfinite(losses[i]) else math.inf)
        if not math.isfinite(losses[best]):
            raise QigError(f"no finite error at block {view.index}, {view.site.name}; check model.dtype")
        return Scale(candidates[best], exponents, losses, exponents[best])


def power_scale(statistic: Tensor, exponent: float) -> Tensor:
    """``statistic^r`` clamped at 1e-4, with the geometric mean of its extremes at 1; ``[channels]`` float32."""
    scale = (statistic.float() ** exponent).clamp(min=SMALLEST)
    return scale / (scale.max() * scale.min()).sqrt()
