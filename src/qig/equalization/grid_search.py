"""The grid search of AWQ (arXiv 2306.00978) under token weights, as MBQ and QIG use it.

``s = mean|x|^r``, clamped at 1e-4 and divided by ``sqrt(max s * min s)``; the r with the least
``sum_{n,t} lambda_{n,t} err_{n,t}`` wins, where err is the token's mean error over output channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from qig.equalization.equalizer import Equalizer, Scale, mean_activation
from qig.errors import QigError
from qig.quantization.linear import substituted
from qig.sensitivity.estimator import SiteView

SMALLEST = 1e-4
ERRORS = {"mse": torch.square, "mae": torch.abs}


class GridSearch(Equalizer):
    needs_weights = True

    @torch.no_grad()
    def scale(self, view: SiteView, weights: list[Tensor] | None) -> Scale:
        statistic = mean_activation(view)
        outputs = _module_outputs if self.config.scope == "module" else _linear_outputs
        exact = outputs(view)
        error = ERRORS[self.config.loss]
        exponents = [round(i * self.config.step, 10) for i in range(self.config.points)]
        quantized = view.setting.selected(view.block)
        linears = {name: quantized[name] for name in view.site.consumers if name in quantized}
        candidates, losses = [power_scale(statistic, r) for r in exponents], []
        for candidate in candidates:
            replacements = {name: view.setting.equalized(linear, candidate) for name, linear in linears.items()}
            with substituted(view.block, replacements):
                found = outputs(view)
            losses.append(
                sum(
                    float((error((y - y_hat).float()).mean(-1) * weight).double().sum())
                    for y, y_hat, weight in zip(exact, found, weights, strict=True)
                )
            )
        best = min(range(len(losses)), key=lambda i: losses[i] if math.isfinite(losses[i]) else math.inf)
        if not math.isfinite(losses[best]):
            raise QigError(f"no finite error at block {view.index}, {view.site.name}; check model.dtype")
        return Scale(candidates[best], exponents, losses, exponents[best])


def power_scale(statistic: Tensor, exponent: float) -> Tensor:
    """``statistic^r`` clamped at 1e-4, with the geometric mean of its extremes at 1; ``[channels]`` float32."""
    scale = (statistic.float() ** exponent).clamp(min=SMALLEST)
    return scale / (scale.max() * scale.min()).sqrt()


def _module_outputs(view: SiteView) -> list[Tensor]:
    return [call(view.f) for call in view.calls]


def _linear_outputs(view: SiteView) -> list[Tensor]:
    """Outputs of the site's linears side by side: the error of ``W x`` itself, as the paper's equation has it."""
    linears: list[nn.Module] = [view.block.get_submodule(name) for name in view.site.consumers]
    return [torch.cat([linear(call.x) for linear in linears], dim=-1) for call in view.calls]
