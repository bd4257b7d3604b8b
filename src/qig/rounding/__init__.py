"""Rounding: weights to integers. A method is one file here, one line in ``ROUNDERS`` and one YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qig.config.schema import Rounding
from qig.named import named

if TYPE_CHECKING:
    from qig.rounding.rounder import Rounder

ROUNDERS = {
    "nearest": "qig.rounding.nearest:Nearest",
    "clipped": "qig.rounding.clipped:ClippedNearest",
    "gptq": "qig.rounding.second_order:Gptq",
    "gptaq": "qig.rounding.second_order:Gptaq",
}


def rounder_of(config: Rounding) -> Rounder:
    """The method that the configuration names."""
    return named(config.kind, ROUNDERS, "rounding")(config)
