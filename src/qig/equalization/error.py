"""The weighted error that every searched scale is judged by: ``sum_{n,t} lambda_{n,t} err_{n,t}``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from qig.blockwise.capture import Call
from qig.blockwise.site import SiteView
from qig.config.schema import GridEqualization
from qig.finite import located, refuse_non_finite
from qig.quantization.linear import substituted

ERRORS = {"mse": torch.square, "mae": torch.abs}


class SiteError:
    """Error of one site's output when its linears are replaced; err is a token's mean error over output channels.

    Args:
        view: the site; ``calls`` are those of the stream on which quantized linears are tried.
        config: ``scope`` module compares f's output, linear the outputs ``W x`` themselves; ``loss`` mse or mae.
        weights: lambda ``[batch, tokens]`` per micro-batch.
        target: the site with the calls whose exact outputs are compared with.

    Raises:
        NonFiniteError: the exact output is not a number; names block, site and sample.
    """

    def __init__(self, view: SiteView, config: GridEqualization, weights: list[Tensor], target: SiteView) -> None:
        self.view = view
        self.weights = weights
        self.error = ERRORS[config.loss]
        module = config.scope == "module"
        self.output = _module_output if module else _linear_output
        self.linears = {
            name: linear for name, linear in view.setting.selected(view.block).items() if name in view.site.consumers
        }
        with torch.no_grad():
            known = map(partial(_exact, target), range(len(target.calls)))
            self.exact = target.outputs if module else view.shelf(known)

    def of_batch(self, index: int, replacements: Mapping[str, nn.Module]) -> Tensor:
        """The weighted error of one micro-batch, a float32 scalar."""
        with substituted(self.view.block, replacements):
            found = self.output(self.view, self.view.calls[index])
        weights = self.weights[index]
        errors = self.error((self.exact[index] - found).float()).mean(-1)
        return torch.where(weights > 0, errors * weights, 0).sum()  # what stands at padding may be infinite

    @torch.no_grad()
    def of_scale(
        self, scale: Tensor, batches: range | None = None, so_far: float = 0.0, bound: float = math.inf
    ) -> float:
        """The weighted error of a candidate ``[channels]`` over micro-batches (default: all), on top of ``so_far``.

        It stops behind the micro-batch with which it exceeds ``bound``.
        """
        replacements = {name: self.view.setting.equalized(linear, scale) for name, linear in self.linears.items()}
        for index in range(len(self.exact)) if batches is None else batches:
            so_far += float(self.of_batch(index, replacements).double())
            if so_far > bound:
                break
        return so_far


def _exact(view: SiteView, index: int) -> Tensor:
    y = _linear_output(view, view.calls[index])
    with located(view.index, view.site.name):
        refuse_non_finite("outputs", y, view.samples[index], view.real[index])
    return y


def _module_output(view: SiteView, call: Call) -> Tensor:
    return call(view.f)


def _linear_output(view: SiteView, call: Call) -> Tensor:
    """Outputs of the site's linears side by side: the error of ``W x`` itself, as the paper's equation has it."""
    return torch.cat([view.block.get_submodule(name)(call.x) for name in view.site.consumers], dim=-1)
