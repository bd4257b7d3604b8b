"""McNemar's exact test of two models on the same samples, and Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest


def mcnemar_exact(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided exact p of McNemar's test that two models are right equally often; ``a``, ``b`` [n] are 0 or 1.

    Only samples on which the models differ count; without any p is 1. Samples are taken as independent, so with
    several questions an image it is the clustered interval that is to be trusted.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if len(a) != len(b):
        raise ValueError(f"got {len(a)} scores of one model and {len(b)} of the other; expected one a sample of each")
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
