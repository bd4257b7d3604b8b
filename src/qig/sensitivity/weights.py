"""From scores to weights: granularity, normalisation, control."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qig.blockwise.site import SiteView
from qig.config.schema import Sensitivity
from qig.data.tokens import TokenKind
from qig.errors import QigError
from qig.finite import located, refuse_non_finite
from qig.sensitivity.estimator import Estimator, Scores
from qig.sensitivity.granularity import CONTROLS, GRANULARITIES, permuted, under_control


@dataclass(frozen=True)
class TokenWeights:
    """lambda of one site: ``[batch, tokens]`` float32 per micro-batch, exactly 0 at padding, and how it was found."""

    values: list[Tensor]
    scores: Scores


def token_weights(estimator: Estimator, view: SiteView, config: Sensitivity) -> TokenWeights:
    """Scores of the estimator at the configured granularity, normalised, and under the configured control.

    A sample whose scores are all zero gets uniform weights, over the tokens that the granularity gives any, and the
    record says so.

    Raises:
        NonFiniteError: a score of a real token is not a number; names block, site and sample.
        QigError: a score is negative, or not every token has one.
    """
    scores = _of_every_token(estimator.scores(view), view, config.kind)
    real = [kinds != TokenKind.PADDING for kinds in view.kinds]
    values = [torch.where(mask, v.float(), 0) for v, mask in zip(scores.values, real, strict=True)]
    with located(view.index, view.site.name):
        for v, names in zip(values, view.samples, strict=True):
            refuse_non_finite("token scores", v, names)
    if (least := min(float(v.min()) for v in values)) < 0:
        raise QigError(f"sensitivity={config.kind}, {view.place}: a token's score is {least:g}; expected 0 or more")
    if not estimator.per_modality:
        coarsen = GRANULARITIES[config.granularity]
        values = [coarsen(v, kinds) for v, kinds in zip(values, view.kinds, strict=True)]
    empty = sum(int((v.sum(1) == 0).sum()) for v in values)
    if empty:
        scores = replace(scores, fallback=scores.fallback or f"{empty} samples without any score")
    share = _mean_sum(values)  # the fallback's sum: 1 after either normalisation
    even = [mask.float() for mask in real]
    if not estimator.per_modality:
        even = [torch.where((least := coarsen(v, kinds)).sum(1, keepdim=True) == 0, v, least)
                for v, kinds in zip(even, view.kinds, strict=True)]  # fmt: skip
    values = [
        torch.where(v.sum(1, keepdim=True) == 0, share * alike / alike.sum(1, keepdim=True), v)
        for v, alike in zip(values, even, strict=True)
    ]
    values = normalized(values, config.normalize)
    means_already = config.control == "modality_mean" and estimator.per_modality
    seen = replace(view, kinds=[under_control(kinds, config.granularity, config.control) for kinds in view.kinds])
    if config.control in CONTROLS and not means_already:
        values = [CONTROLS[config.control](v, kinds) for v, kinds in zip(values, seen.kinds, strict=True)]
    elif config.control == "permuted":
        values = [_permuted(v, batch, seen, config) for batch, v in enumerate(values)]
    return TokenWeights(values, scores)


def _of_every_token(scores: Scores, view: SiteView, kind: str) -> Scores:
    """Raises QigError unless they are ``Scores`` with one of each token; a row a sample would be broadcast silently."""
    expected = [tuple(kinds.shape) for kinds in view.kinds]
    if not isinstance(scores, Scores):
        raise QigError(f"sensitivity={kind}, {view.place}: got a {type(scores).__name__} of scores, expected Scores")
    found = [tuple(v.shape) for v in scores.values]
    if found != expected:
        raise QigError(
            f"sensitivity={kind}, {view.place}: scores have the shapes {found}; expected [batch, tokens] of each "
            f"micro-batch: {expected}"
        )
    return scores


def _permuted(values: Tensor, batch: int, view: SiteView, config: Sensitivity) -> Tensor:
    site = f"{config.control_seed}/{view.index}/{view.site.name}"
    return permuted(values, view.kinds[batch], [f"{site}/{sample}" for sample in view.samples[batch]])


def _mean_sum(values: list[Tensor]) -> float:
    """Mean over samples of their scores' sum, samples without any score left out; 1 if there are no others."""
    sums = torch.cat([v.double().sum(1) for v in values])
    return float(sums[sums > 0].mean()) if bool((sums > 0).any()) else 1.0


def normalized(values: list[Tensor], over: str) -> list[Tensor]:
    """``sample``: every sample sums to 1. ``corpus``: the samples sum to 1 on average."""
    if over == "sample":
        return [v / v.sum(1, keepdim=True) for v in values]
    samples = sum(len(v) for v in values)
    total = sum(float(v.double().sum()) for v in values)
    return [v * (samples / total) for v in values]
