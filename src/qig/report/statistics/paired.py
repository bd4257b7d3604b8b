"""Paired comparison of two models on the same samples: clustered intervals, McNemar's exact test, Holm's correction."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, bootstrap

_RESAMPLES_AT_ONCE = 1_000


@dataclass(frozen=True)
class Estimate:
    """A mean over ``n`` samples in ``clusters`` clusters and its confidence interval, in the unit of the samples.

    ``low`` and ``high`` are NaN where a single cluster leaves the spread unknown.
    """

    mean: float
    low: float
    high: float
    n: int
    clusters: int


def mean_interval(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """Mean of ``values`` [n] with a percentile bootstrap interval.

    Whole clusters are drawn with replacement, since samples with the same entry in ``clusters`` [n] (questions about
    one image) share their errors. The statistic is the ratio of summed values to number of samples, so clusters may
    differ in size. Equal arguments give equal bits.

    Raises:
        ValueError: lengths differ, there is no sample, or a value is not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    _check_lengths(values=values, clusters=clusters)
    if not len(values):
        raise ValueError("got no samples; expected at least one")
    if not np.isfinite(values).all():
        raise ValueError(f"got {np.sum(~np.isfinite(values))} values of {len(values)} that are not finite")
    place = {cluster: index for index, cluster in enumerate(dict.fromkeys(clusters))}
    member = np.array([place[cluster] for cluster in clusters])
    sums = np.bincount(member, weights=values)
    sizes = np.bincount(member).astype(np.float64)
    mean = float(sums.sum() / sizes.sum())
    if len(sums) > 1:
        low, high = bootstrap(
            (sums, sizes),
            _ratio,
            paired=True,
            vectorized=True,
            n_resamples=resamples,
            batch=_RESAMPLES_AT_ONCE,
            confidence_level=confidence,
            method="percentile",
            random_state=np.random.default_rng(seed),
        ).confidence_interval
    else:
        low = high = mean if np.ptp(values) == 0 and mean == 0 else np.nan
    return Estimate(mean=mean, low=float(low), high=float(high), n=len(values), clusters=len(sums))


def paired_difference(
    a: Sequence[float],
    b: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """Mean of ``a - b`` over the same samples, with the interval of :func:`mean_interval`.

    ``a`` and ``b`` [n] are per-sample scores of two models in the same order.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    _check_lengths(a=a, b=b, clusters=clusters)
    return mean_interval(a - b, clusters, confidence=confidence, resamples=resamples, seed=seed)


def mcnemar_exact(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided exact p of McNemar's test that two models are right equally often; ``a``, ``b`` [n] are 0 or 1.

    Only samples on which the models differ count; without any p is 1. Samples are taken as independent, so with
    several questions an image it is the clustered interval that is to be trusted.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    _check_lengths(a=a, b=b)
    strange = sorted(set(np.concatenate([a, b]).tolist()) - {0.0, 1.0})
    if strange:
        raise ValueError(f"got scores {strange[:5]}; McNemar's test expects 0 or 1")
    only_a, only_b = int(np.sum(a > b)), int(np.sum(b > a))
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def holm(pvalues: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values in the order given; rejecting those below alpha keeps the family-wise error below it."""
    p = np.asarray(pvalues, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"got p-values {p.tolist()}; expected numbers between 0 and 1")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted.tolist()


def _ratio(sums: np.ndarray, sizes: np.ndarray, axis: int) -> np.ndarray:
    return sums.sum(axis=axis) / sizes.sum(axis=axis)


def _check_lengths(**columns: Sequence) -> None:
    if len({len(column) for column in columns.values()}) > 1:
        got = ", ".join(f"{len(column)} in {name}" for name, column in columns.items())
        raise ValueError(f"got columns of different lengths ({got}); expected one entry a sample in each")
