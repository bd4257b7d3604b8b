"""What a rounding method is given and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from qig.about import About
from qig.config.schema import Rounding
from qig.quantization.grid import QuantizedWeight
from qig.quantization.setting import Setting


@dataclass(frozen=True)
class LinearInputs:
    """What flows into the linears of one site, with all scales folded in.

    Attributes:
        exact: inputs in the full-precision stream, ``[batch, tokens, channels]`` per micro-batch.
        quantized: the same in the quantized stream, behind the linears rounded so far; ``None`` unless asked for.
        weights: lambda ``[batch, tokens]`` per micro-batch, 0 at padding.
    """

    exact: Sequence[Tensor]
    quantized: Sequence[Tensor] | None
    weights: list[Tensor]


class Rounder(ABC):
    """Turns the linears of a site into integers. ``needs_inputs``: without data there is nothing to go by."""

    about: ClassVar[About]
    needs_inputs = False
    needs_quantized_stream = False

    def __init__(self, config: Rounding) -> None:
        self.config = config

    @abstractmethod
    def round(
        self, linears: Mapping[str, nn.Linear], setting: Setting, inputs: LinearInputs | None
    ) -> dict[str, QuantizedWeight]:
        """Integers of every linear, under its name; all of them have the same inputs."""


def weighted_moment(left: Sequence[Tensor], right: Sequence[Tensor], weights: list[Tensor]) -> Tensor:
    """``sum_{n,t} lambda_{n,t} left_{n,t} right_{n,t}^T``: ``[channels, channels]`` float64.

    Products of a micro-batch are float32, which is what accelerators are fast at; micro-batches are added in float64.
    """
    total = None
    for a, b, weight in zip(left, right, weights, strict=True):
        keep = weight > 0
        part = (a[keep].float() * weight[keep].float().unsqueeze(-1)).T @ b[keep].float()
        total = part.double() if total is None else total + part
    return total


def uses(stream: str, inputs: LinearInputs) -> Sequence[Tensor]:
    """The inputs of the stream that the configuration names, ``exact`` or ``quantized``."""
    return inputs.exact if stream == "exact" else inputs.quantized
