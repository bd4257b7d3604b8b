"""Options of how weights become integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from omegaconf import MISSING


@dataclass
class Rounding:
    kind: str = MISSING


@dataclass
class NearestRounding(Rounding):
    pass


@dataclass
class ClippedRounding(Rounding):
    """Ranges shrunk by up to ``max_shrink`` in ``points`` steps; not in linears whose name contains one of ``skip``."""

    points: int = MISSING
    max_shrink: float = MISSING
    skip: list[str] = MISSING


@dataclass
class GptqRounding(Rounding):
    """``stream``: whose inputs the Hessian is made of."""

    stream: Literal["exact", "quantized"] = MISSING
    damping: float = MISSING
    block: int = MISSING
    order_by_activation: bool = MISSING
    static_groups: bool = MISSING


@dataclass
class GptaqRounding(GptqRounding):
    """``asymmetry``: how far from the quantized stream's inputs (0: GPTQ) to the exact ones (1) the target's are."""

    asymmetry: float = MISSING
