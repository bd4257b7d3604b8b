"""Clipping of token scores within a sample (QIG, Table A1)."""

from __future__ import annotations

import torch
from torch import Tensor


def iqr_bounds(scores: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """``Q1 - factor * IQR`` and ``Q3 + factor * IQR`` of the scores ``[tokens]`` (linear interpolation)."""
    quartiles = torch.quantile(scores.float(), torch.tensor([0.25, 0.75], device=scores.device))
    spread = factor * (quartiles[1] - quartiles[0])
    return quartiles[0] - spread, quartiles[1] + spread


def clip(scores: Tensor, real: Tensor, factor: float) -> Tensor:
    """Scores ``[batch, tokens]`` clipped to each sample's own bounds over its real tokens; padding stays as it is."""
    clipped = scores.clone()
    for row, keep in enumerate(real):
        low, high = iqr_bounds(scores[row, keep], factor)
        clipped[row, keep] = scores[row, keep].clamp(low.to(scores.dtype), high.to(scores.dtype))
    return clipped
