"""Options of how input channels are scaled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from omegaconf import MISSING


@dataclass
class Equalization:
    """``share_attn_out``: under grouped-query attention one scale for all query heads of a group, else no scale."""

    kind: str = MISSING
    sites: list[str] = MISSING
    share_attn_out: bool = MISSING


@dataclass
class NoEqualization(Equalization):
    pass


@dataclass
class SmoothQuantEqualization(Equalization):
    alpha: float = MISSING


@dataclass
class GridEqualization(Equalization):
    """Scales mean|x|^r for ``points`` exponents r from 0 in steps of ``step``; the least weighted error wins.

    ``stream``: whose inputs the exact f sees and the quantized one, too; ``both``: the exact f sees the exact stream's,
    the quantized f, and the statistic, the quantized stream's. ``statistic``: mean |x| over tokens, or weighted by
    lambda.
    ``early_stop``: give up exponents that cannot win; changes no scale, but leaves gaps in the curve of errors.
    """

    points: int = MISSING
    step: float = MISSING
    scope: Literal["module", "linear"] = MISSING
    loss: Literal["mse", "mae"] = MISSING
    stream: Literal["exact", "quantized", "both"] = MISSING
    statistic: Literal["mean", "weighted"] = MISSING
    early_stop: bool = MISSING


@dataclass
class LearnedEqualization(GridEqualization):
    """From the grid's result by gradient: ``steps`` Adam steps over all micro-batches, ``rate`` on the log scales."""

    steps: int = MISSING
    rate: float = MISSING
