"""Bounds of single numbers."""

from __future__ import annotations

import math
from typing import Any

from qig.errors import ConfigError


def check_finite(key: str, value: Any) -> None:
    """Refuse NaN and infinities anywhere: no comparison with NaN is true, so that other rules would let it through."""
    if isinstance(value, dict):
        for name, inner in value.items():
            check_finite(f"{key}.{name}" if key else str(name), inner)
    elif isinstance(value, list):
        for inner in value:
            check_finite(key, inner)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key}={value}: expected a finite number")


def at_least(key: str, value: int, low: int) -> None:
    if value < low:
        raise ConfigError(f"{key}={value}: expected {low} or more")


def within(key: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{key}={value}: expected {low} to {high}")
