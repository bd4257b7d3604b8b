"""Where the spread of a mean over calibration seeds and images comes from.

Every seed answers the same questions, so seeds and images are crossed, not nested: with the value of seed s on image
c written as ``mean + seed_s + image_c + rest_sc``, the variance of the mean is ``V(seed)/S + V(image)/C + V(rest)/SC``
(two-way random effects; Searle, Casella & McCulloch, Variance Components, 1992, chapter 4).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Layout:
    """What each column of a value matrix ``[seeds, samples]`` belongs to.

    ``cluster`` [samples]: index of its image; images of different strata are different ones. ``stratum`` [clusters]:
    index of the benchmark. ``share`` [samples]: its weight in the mean, which gives each stratum the same.
    """

    cluster: np.ndarray
    stratum: np.ndarray
    share: np.ndarray

    @classmethod
    def of(cls, clusters: Sequence[Hashable], strata: Sequence[Hashable]) -> Layout:
        places: dict[tuple[Hashable, Hashable], int] = {}
        cluster = np.array([places.setdefault(pair, len(places)) for pair in zip(strata, clusters, strict=True)])
        names = list(dict.fromkeys(stratum for stratum, _ in places))
        stratum = np.array([names.index(name) for name, _ in places])
        sizes = np.bincount(stratum[cluster])
        return cls(cluster, stratum, 1 / (sizes[stratum[cluster]] * len(sizes)))

    def means(self, values: np.ndarray) -> np.ndarray:
        """Mean over strata of their means, ``[seeds]``."""
        return values @ self.share

    def by_cluster(self, values: np.ndarray) -> np.ndarray:
        """Each cluster's part in the mean, ``[seeds, clusters]``; the parts of a seed sum to its mean."""
        parts = np.zeros((len(values), len(self.stratum)))
        np.add.at(parts.T, self.cluster, (values * self.share).T)
        return parts


@dataclass(frozen=True)
class Components:
    """Spread of the mean: ``seeds`` and ``clusters`` are their parts in its variance, ``df`` Satterthwaite's.

    NaN where a single cluster in a stratum leaves the spread unknown. ``clusters`` holds the rest, too.
    """

    mean: float
    seeds: float
    clusters: float
    df: float

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return float(np.sqrt(self.seeds + self.clusters))


def components(values: np.ndarray, layout: Layout) -> Components:
    """Unbiased parts of the variance of the mean of ``values`` ``[seeds, samples]``.

    Clusters may differ in size: the mean of a stratum is a ratio, and linearised as such. A negative estimate of the
    seeds' part, which arises where seeds do not matter, is taken as 0.
    """
    seeds = len(values)
    stratum_of = layout.stratum[layout.cluster]
    sizes = np.bincount(stratum_of)
    centres = np.bincount(stratum_of, weights=values.mean(axis=0)) / sizes
    mean = float(centres.mean())
    counts = np.bincount(layout.stratum)
    if (counts < 2).any():
        known = 0.0 if not values.any() else np.nan
        return Components(mean, known, known, np.nan)
    parts = layout.by_cluster(values - centres[stratum_of])
    correction = (counts / (counts - 1))[layout.stratum]
    by_stratum = np.bincount(layout.stratum, weights=correction * parts.mean(axis=0) ** 2)
    clusters = float(by_stratum.sum())
    # A benchmark of few images or of much spread has its own degrees of freedom: they are not pooled.
    uncertain = float((by_stratum**2 / (counts - 1)).sum())
    inner = clusters**2 / uncertain if uncertain else float((counts - 1).sum())
    if seeds == 1:
        return Components(mean, 0.0, clusters, inner)
    effects = parts.sum(axis=1)
    width = np.bincount(layout.cluster, weights=layout.share)
    rest = parts - parts.mean(axis=0) - effects[:, None] * width
    noises = np.bincount(layout.stratum, weights=(correction * rest**2).sum(axis=0)) / (seeds - 1) / seeds
    noise = float(noises.sum())
    between = float((effects**2).sum() / (seeds - 1) / seeds)
    # Equal seeds differ by rounding alone.
    if between - noise <= 1e-18 * np.square(values).max():
        return Components(mean, 0.0, clusters, inner)
    total = between - noise + clusters
    spread = (between**2 + float((noises**2 / (counts - 1)).sum())) / (seeds - 1) + uncertain
    # Satterthwaite's formula can fall below every part's own degrees of freedom where a part is subtracted.
    return Components(mean, between - noise, clusters, max(total**2 / spread, min(seeds - 1.0, inner)))
