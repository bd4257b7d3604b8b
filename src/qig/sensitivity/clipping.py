"""Clipping of token scores within a sample (QIG, Table A1)."""

from __future__ import annotations

import torch
from torch import Tensor

from qig.errors import ConfigError, choices

TOP_SHARE = 0.05


def iqr_bounds(scores: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """``Q1 - factor * IQR`` and ``Q3 + factor * IQR`` of the scores ``[tokens]`` (linear interpolation)."""
    precise = scores.to(torch.promote_types(scores.dtype, torch.float32))
    quartiles = torch.quantile(precise, precise.new_tensor([0.25, 0.75]))
    spread = factor * (quartiles[1] - quartiles[0])
    return quartiles[0] - spread, quartiles[1] + spread


def _none(scores: Tensor, factor: float) -> Tensor:
    return scores


def _iqr(scores: Tensor, factor: float) -> Tensor:
    low, high = iqr_bounds(scores, factor)
    return scores.clamp(low.to(scores.dtype), high.to(scores.dtype))


def _top5_zero(scores: Tensor, factor: float) -> Tensor:
    return torch.where(_top5(scores), 0, scores)


def _top5_mean(scores: Tensor, factor: float) -> Tensor:
    return torch.where(_top5(scores), scores.mean(), scores)


def _top5(scores: Tensor) -> Tensor:
    """The 5% of tokens with the highest scores, rounded up."""
    count = -int(-TOP_SHARE * len(scores) // 1)
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    chosen[scores.topk(count).indices] = True
    return chosen


CLIPS = {"none": _none, "iqr": _iqr, "top5_zero": _top5_zero, "top5_mean": _top5_mean}


def clip(scores: Tensor, real: Tensor, name: str, factor: float) -> Tensor:
    """Scores ``[batch, tokens]`` clipped within each sample's real tokens; padding stays as it is.

    ``iqr``: to ``[Q1 - factor IQR, Q3 + factor IQR]``; ``top5_zero`` and ``top5_mean``: the highest 5% become 0 or the
    sample's mean.
    """
    if name not in CLIPS:
        raise ConfigError(choices(name, CLIPS, "clipping"))
    clipped = scores.clone()
    for row, keep in enumerate(real):
        clipped[row, keep] = CLIPS[name](scores[row, keep], factor)
    return clipped
