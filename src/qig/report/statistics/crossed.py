"""The difference of two methods over calibration seeds and images: bootstrap interval, test, standard error."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from qig.report.statistics.components import Components, Layout, components

_RESAMPLES_AT_ONCE = 500


@dataclass(frozen=True)
class Difference:
    """A mean over seeds and samples with its interval; ``p``: two-sided, that it is 0 (t-test on ``error``, ``df``;
    sign test over images where ``error`` is 0).

    NaN where a single image leaves the spread unknown.
    """

    mean: float
    low: float
    high: float
    error: float
    df: float
    p: float
    seeds: int
    samples: int


def compare(
    values: np.ndarray,
    clusters: Sequence[Hashable],
    strata: Sequence[Hashable] | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Mean of ``values`` ``[seeds, samples]``, such as paired differences, with a hierarchical bootstrap interval.

    ``clusters`` [samples]: samples with the same entry (questions about an image) are drawn together; ``strata``
    [samples]: benchmarks, each with the same weight in the mean, their images drawn separately. With several seeds,
    seeds are drawn as well: the effects of seeds are first shrunk to their unbiased spread (``components``), since the
    raw ones also hold the samples' noise, and widened by Student's t, since a handful of them is a small sample
    (shrunken residuals: Davison & Hinkley, Bootstrap Methods, 1997, section 3.8). Equal arguments give equal bits.

    Raises:
        ValueError: lengths differ, there is no sample, or a value is not finite.
    """
    values = np.atleast_2d(np.asarray(values, dtype=np.float64))
    strata = [""] * len(clusters) if strata is None else strata
    if not values.shape[1] == len(clusters) == len(strata):
        raise ValueError(f"got {values.shape[1]} values a seed, {len(clusters)} clusters, {len(strata)} strata")
    if not values.size:
        raise ValueError("got no samples; expected at least one")
    if not np.isfinite(values).all():
        raise ValueError(f"got {np.sum(~np.isfinite(values))} values of {values.size} that are not finite")
    layout = Layout.of(clusters, strata)
    found = components(values, layout)
    low, high = _interval(values, layout, found, confidence, resamples, seed)
    return Difference(found.mean, low, high, found.error, found.df, _p(found, values, layout), *values.shape)


def _p(found: Components, values: np.ndarray, layout: Layout) -> float:
    if found.error == 0:  # no image differs from another: what is left is on which side they are
        sides = np.sign(layout.by_cluster(values).sum(axis=0))
        return float(stats.binomtest(int((sides > 0).sum()), int((sides != 0).sum())).pvalue) if sides.any() else 1.0
    return float(2 * stats.t.sf(abs(found.mean / found.error), found.df))


def _interval(
    values: np.ndarray, layout: Layout, found: Components, confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    if np.isnan(found.error):
        return np.nan, np.nan
    random = np.random.default_rng(seed)
    replicates = _clusters_drawn(values.mean(axis=0), layout, resamples, random)
    if found.seeds > 0:
        count = len(values)
        effects = layout.means(values) - found.mean
        level = (1 + confidence) / 2
        widened = stats.t.ppf(level, count - 1) / stats.norm.ppf(level)
        factor = widened * np.sqrt(found.seeds / (effects @ effects / count**2))
        replicates += factor * effects[random.integers(0, count, (resamples, count))].mean(axis=1)
    outside = 100 * (1 - confidence) / 2
    low, high = np.percentile(replicates, [outside, 100 - outside])
    return float(low), float(high)


def _clusters_drawn(values: np.ndarray, layout: Layout, resamples: int, random: np.random.Generator) -> np.ndarray:
    """Means of ``values`` [samples] when the clusters of each stratum are drawn with replacement, ``[resamples]``."""
    sums = np.bincount(layout.cluster, weights=values)
    sizes = np.bincount(layout.cluster).astype(np.float64)
    means = []
    for stratum in range(layout.stratum.max() + 1):
        own = np.flatnonzero(layout.stratum == stratum)
        ratios = []
        for start in range(0, resamples, _RESAMPLES_AT_ONCE):
            drawn = own[random.integers(0, len(own), (min(_RESAMPLES_AT_ONCE, resamples - start), len(own)))]
            ratios.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
        means.append(np.concatenate(ratios))
    return np.mean(means, axis=0)
