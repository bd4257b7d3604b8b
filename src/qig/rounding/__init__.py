"""Rounding: weights to integers. A method is one file here, one line in ``ROUNDERS`` and one YAML."""

from __future__ import annotations

from qig.config.schema import Rounding
from qig.errors import ConfigError, choices
from qig.rounding.clipped import ClippedNearest
from qig.rounding.nearest import Nearest
from qig.rounding.rounder import Rounder
from qig.rounding.second_order import Gptaq, Gptq

ROUNDERS: dict[str, type[Rounder]] = {
    "nearest": Nearest,
    "clipped": ClippedNearest,
    "gptq": Gptq,
    "gptaq": Gptaq,
}


def rounder(config: Rounding) -> Rounder:
    """The method that the configuration names."""
    if config.kind not in ROUNDERS:
        raise ConfigError(choices(config.kind, ROUNDERS, "rounding"))
    return ROUNDERS[config.kind](config)
