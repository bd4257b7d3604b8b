"""What an equalization method is given and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from qig.about import About
from qig.blockwise.site import SiteView
from qig.config.schema import Equalization
from qig.data.tokens import TokenKind


@dataclass(frozen=True)
class Scale:
    """The scale of one site.

    Attributes:
        value: ``[channels]`` float32, positive.
        exponents: the search's grid, and ``losses`` the weighted error at each of its points; ``None`` where the search
            stopped early.
        exponent: the grid point that was chosen.
        learned_loss: the weighted error that learning reached from there.
    """

    value: Tensor
    exponents: list[float] | None = None
    losses: list[float | None] | None = None
    exponent: float | None = None
    learned_loss: float | None = None


class Equalizer(ABC):
    """Finds the scale of a site. ``needs_weights`` says whether token weights enter; without them none are computed."""

    about: ClassVar[About]
    needs_weights = False
    needs_quantized_stream = False

    def __init__(self, config: Equalization) -> None:
        self.config = config

    @abstractmethod
    def scale(self, view: SiteView, weights: list[Tensor] | None) -> Scale:
        """The scale of this site; ``weights`` are lambda ``[batch, tokens]`` per micro-batch."""


def mean_activation(view: SiteView, weights: list[Tensor] | None = None) -> Tensor:
    """``sum lambda |x| / sum lambda`` per channel over all real tokens; without weights the plain mean.

    Returns ``[channels]`` float32.
    """
    total, mass = 0.0, 0.0
    for i, (call, kinds) in enumerate(zip(view.calls, view.kinds, strict=True)):
        real = kinds != TokenKind.PADDING
        weight = real[real].double() if weights is None else weights[i][real].double()
        total = total + weight @ call.x[real].abs().double()
        mass += float(weight.sum())
    return (total / mass).float()


def largest_activation(view: SiteView) -> Tensor:
    """``max_{n,t} |x|`` per channel over all real tokens: ``[channels]`` float32."""
    largest = [
        call.x[kinds != TokenKind.PADDING].abs().amax(0).float()
        for call, kinds in zip(view.calls, view.kinds, strict=True)
    ]
    result = largest[0]
    for other in largest[1:]:
        result = result.maximum(other)
    return result
