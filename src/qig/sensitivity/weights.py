"""From scores to weights: granularity, then normalisation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qig.config.schema import Sensitivity
from qig.data.tokens import TokenKind
from qig.sensitivity.estimator import Estimator, Scores, SiteView


@dataclass(frozen=True)
class TokenWeights:
    """lambda of one site: ``[batch, tokens]`` float32 per micro-batch, exactly 0 at padding, and how it was found."""

    values: list[Tensor]
    scores: Scores


def token_weights(estimator: Estimator, view: SiteView, config: Sensitivity) -> TokenWeights:
    """Scores of the estimator at the configured granularity, normalised.

    A sample whose scores are all zero gets uniform weights, and the record says so.
    """
    scores = estimator.scores(view)
    values = [v.float() * (kinds != TokenKind.PADDING) for v, kinds in zip(scores.values, view.kinds, strict=True)]
    if config.granularity == "modality":
        values = [modality_means(v, kinds) for v, kinds in zip(values, view.kinds, strict=True)]
    empty = sum(int((v.sum(1) == 0).sum()) for v in values)
    if empty:
        scores = replace(scores, fallback=scores.fallback or f"{empty} samples without any score")
    real = [(kinds != TokenKind.PADDING).float() for kinds in view.kinds]
    values = [torch.where(v.sum(1, keepdim=True) == 0, r, v) for v, r in zip(values, real, strict=True)]
    return TokenWeights(normalized(values, config.normalize), scores)


def modality_means(values: Tensor, kinds: Tensor) -> Tensor:
    """Each sample's values ``[batch, tokens]`` replaced by their mean over its vision and over its text tokens."""
    result = torch.zeros_like(values)
    vision = kinds == TokenKind.VISION
    for group in (vision, ~vision & (kinds != TokenKind.PADDING)):
        mean = (values * group).sum(1, keepdim=True) / group.sum(1, keepdim=True).clamp(min=1)
        result += mean * group
    return result


def normalized(values: list[Tensor], over: str) -> list[Tensor]:
    """``sample``: every sample sums to 1. ``corpus``: the samples sum to 1 on average."""
    if over == "sample":
        return [v / v.sum(1, keepdim=True) for v in values]
    samples = sum(len(v) for v in values)
    total = sum(float(v.double().sum()) for v in values)
    return [v * (samples / total) for v in values]
