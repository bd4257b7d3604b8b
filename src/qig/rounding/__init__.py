"""Rounding: weights to integers. A method is one file here, one line in ``ROUNDERS`` and one YAML."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from qig.config.schema import Rounding
from qig.errors import ConfigError, choices
from qig.quantization.grid import QuantizedWeight
from qig.quantization.setting import Setting
from qig.rounding.nearest import nearest

Rounder = Callable[[nn.Linear, Setting], QuantizedWeight]
ROUNDERS: dict[str, Rounder] = {"nearest": nearest}


def rounder(config: Rounding) -> Rounder:
    """The method that the configuration names."""
    if config.kind not in ROUNDERS:
        raise ConfigError(choices(config.kind, ROUNDERS, "rounding"))
    return ROUNDERS[config.kind]
