"""Numbers as a reader wants them: percent with one decimal, signed points, MiB, seconds; a dash for what is not."""

from __future__ import annotations

import math

DASH = "–"
METHODS = {"none": "16 bit", "stored": "as stored", "rtn": "RTN", "smoothquant": "SmoothQuant", "awq": "CWE",
           "awq_clip": "AWQ", "mbq": "MBQ", "qig": "QIG", "gptq": "GPTQ", "gptaq": "GPTAQ", "gptq_qig": "GPTQ + QIG",
           "vlmq": "VLMQ"}
"""Methods whose printed name is not their configured one. CWE, channel-wise equalization, is what the papers call AWQ's
search with uniform weights; AWQ proper searches the groups' ranges, too."""


def absent(value: object) -> bool:
    """None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def plain(value: object, digits: int | None = None) -> str:
    """``0.5`` -> ``0.5``; with ``digits`` a fixed number of decimals, and ``<0.001`` for what they cannot show."""
    if absent(value):
        return DASH
    if digits is not None:
        return f"<{10 ** -digits:g}" if 0 < value < 10 ** -digits else f"{value:.{digits}f}"
    if isinstance(value, float):  # a whole number may be a seed, of which every digit counts
        return f"{value:.0f}" if value.is_integer() else f"{value:g}"
    return str(value)


def accuracy(value: float, low: float | None = None, high: float | None = None) -> str:
    """A fraction of 1 in percent: ``96.4 [95.5, 97.2]``, or without bounds ``96.4``."""
    if absent(value):
        return DASH
    return f"{100 * value:.1f}" + ("" if absent(low) else f" [{100 * low:.1f}, {100 * high:.1f}]")


def difference(value: float, low: float, high: float, *, scale: float, digits: int) -> str:
    """``-0.7 [-1.2, -0.2]``: signed, multiplied by ``scale`` (100: points)."""
    if absent(value):
        return DASH
    bounds = "" if absent(low) else f" [{signed(scale * low, digits)}, {signed(scale * high, digits)}]"
    return signed(scale * value, digits) + bounds


def signed(value: float, digits: int) -> str:
    """With its sign; what rounds to zero has none."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def seconds(value: float) -> str:
    """``0.4 s``, ``75 s``, ``12.5 min``, ``2.3 h``."""
    if absent(value):
        return DASH
    if value < 120:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def byte_size(value: float) -> str:
    """``1.0 MiB``; from 1 GiB on in GiB."""
    if absent(value):
        return DASH
    return f"{value / 2**20:.1f} MiB" if value < 2**30 else f"{value / 2**30:.2f} GiB"


def count(value: float) -> str:
    """``2,000``."""
    return DASH if absent(value) else f"{int(value):,}"
