"""What a comparison could have seen: the power line of a table."""

from __future__ import annotations

import numpy as np
from scipy import stats


def power(difference: float, error: float, df: float, *, level: float = 0.05) -> float:
    """Probability that a two-sided t-test at ``level`` finds a true ``difference``, and its sign, by its ``error``."""
    critical = stats.t.ppf(1 - level / 2, df)
    shift = abs(difference) / error
    return float(stats.nct.sf(critical, df, shift))


def detectable(error: float, df: float, *, wanted: float = 0.8, level: float = 0.05) -> float:
    """The smallest true difference that a two-sided t-test at ``level`` finds with the ``wanted`` probability.

    ``error``: standard error of the paired difference, from its own variance; the unit is the error's. NaN for an
    unknown error, and for one of 0: where no sample differed, nothing is known of how much they can.
    """
    from scipy.optimize import brentq

    if np.isnan(error) or error == 0:
        return float("nan")
    start = (stats.t.ppf(1 - level / 2, df) + stats.t.ppf(wanted, df)) * error
    return float(brentq(lambda size: power(size, error, df, level=level) - wanted, start / 4, start * 4))
