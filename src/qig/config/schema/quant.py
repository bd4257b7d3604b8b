"""The integer grids of a bit setting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from omegaconf import MISSING


@dataclass
class WeightSetting:
    """Integer grid of the weights. ``group_size`` null: one scale per output channel."""

    bits: int = MISSING
    symmetric: bool = MISSING
    group_size: int | None = MISSING


@dataclass
class ActivationSetting:
    """Symmetric, per token, dynamic. ``scale``: max|x| over the largest integer, or over half the range of integers."""

    bits: int = MISSING
    scale: Literal["largest", "range"] = MISSING


@dataclass
class Quant:
    name: str = MISSING
    weights: WeightSetting | None = MISSING
    activations: ActivationSetting | None = MISSING
    linears: str = MISSING  # regular expression over the names of linears inside a decoder block
