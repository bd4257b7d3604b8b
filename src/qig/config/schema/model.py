"""The model, and the outliers that are put into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from omegaconf import MISSING


@dataclass
class Outliers:
    """Synthetic, function-preserving outlier channels (lognormal, standard deviation ``sigma``; 0 = none)."""

    sigma: float = MISSING
    seed: int = MISSING


@dataclass
class Model:
    name: str = MISSING
    path: str = MISSING  # a directory, a hub id, embedded:NAME, or packaged:NAME
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = MISSING
    outliers: Outliers = MISSING
