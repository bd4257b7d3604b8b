"""How token scores are spread before clipping, and where the clip would cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qig.errors import StoreError
from qig.report.figures.identity import identity, subject
from qig.report.figures.style import KIND_COLOURS, PAGE, SITES, new_figure
from qig.report.records import TOKEN_KINDS, Run

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EDGES = (-6.0, 6.0, 0.25)
"""Octaves around the mean that the bins cover (the outermost take what lies beyond), and a bin's width."""
COLUMNS = ("run", "method", "model", "setting", "sigma", "site", "kind", "left", "right", "tokens",
           "bound_low", "bound", "bound_high", "clipped")


def data(run: Run) -> pd.DataFrame:
    """Counts of tokens by their score relative to their sample's mean, a row a site, kind and bin.

    ``bound``: median over samples and blocks of the upper clip bound ``Q3 + factor IQR`` (``bound_low`` and
    ``bound_high``: 5th and 95th percentile); ``clipped``: share of a site's tokens above their own sample's bound.
    StoreError for a run that has clipped its scores: what it cut off is lost.
    """
    import numpy as np
    import pandas as pd

    config = run.config["sensitivity"]
    if config.get("clip") != "none":
        raise StoreError(f"run {run.id} ({run.method}) has no scores from before clipping: got sensitivity.clip="
                         f"{config.get('clip', 'absent')}, expected none")
    edges = np.arange(EDGES[0], EDGES[1] + EDGES[2] / 2, EDGES[2])
    rows = []
    for site in [site for site in SITES if any(site == have for _, have in run.sensitivities.weights)]:
        scores, bounds = _relative(run, site, config["clip_factor"])
        kinds = np.tile(run.sensitivities.kinds, len(scores))
        octaves = np.log2(np.maximum(scores.ravel(), 2.0 ** EDGES[0])).clip(EDGES[0], EDGES[1] - 1e-9)
        low, middle, high = np.quantile(bounds, (0.05, 0.5, 0.95))
        about = {"bound_low": low, "bound": middle, "bound_high": high, "clipped": float((scores > bounds).mean())}
        for code, kind in TOKEN_KINDS.items():
            counts, _ = np.histogram(octaves[kinds == code], edges)
            rows += [{"site": site, "kind": kind, "left": 2.0**left, "right": 2.0**right, "tokens": int(count)} | about
                     for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True)]
    frame = pd.DataFrame(rows)
    return pd.DataFrame(identity(run), index=frame.index).join(frame)


def draw(frame: pd.DataFrame) -> Figure:
    """Stacked histograms over a logarithmic scale, a panel a site, with the upper bound and what lies above it."""
    sites = list(dict.fromkeys(frame.site))
    figure = new_figure(PAGE, 2.1)
    panels = figure.subplots(1, len(sites), squeeze=False, sharex=True, sharey=True)[0]
    seen = frame[frame.tokens > 0]
    for axes, site in zip(panels, sites, strict=True):
        _histogram(axes, frame[frame.site == site])
        axes.set(title=SITES[site], xlabel="score / mean of the sample", xscale="log",
                 xlim=(seen.left.min(), seen.right.max()))
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}" if value >= 1 else f"1/{1 / value:g}")
    panels[0].set_ylabel("share of tokens")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    figure.suptitle(f"Token scores before clipping: {subject(frame)}")
    return figure


def _histogram(axes: Axes, part: pd.DataFrame) -> None:
    import numpy as np

    bins = part.pivot(index="left", columns="kind", values="tokens")
    widths = part.drop_duplicates("left").set_index("left").right - bins.index
    below = np.zeros(len(bins))
    for kind, colour in KIND_COLOURS.items():
        share = (bins[kind] / bins.to_numpy().sum()).to_numpy()
        axes.bar(bins.index, share, widths, below, align="edge", color=colour, edgecolor="white", linewidth=0.2,
                 label=kind)
        below += share
    first = part.iloc[0]
    axes.axvspan(first.bound_low, first.bound_high, color="black", alpha=0.13, linewidth=0)
    axes.axvline(first.bound, color="black", linestyle="--", linewidth=0.9, label="upper clip bound (band: 90%)")
    axes.set_ylim(0, max(axes.get_ylim()[1], 1.18 * below.max()))
    axes.annotate(f"{100 * first.clipped:.1f}% above", (first.bound, 0.97), (3, 0), va="top", fontsize=6.5,
                  xycoords=("data", "axes fraction"), textcoords="offset points")


def _relative(run: Run, site: str, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores ``[blocks, tokens]`` relative to their sample's mean, and the upper bound of their sample, as large."""
    import numpy as np
    import torch

    from qig.sensitivity.clipping import iqr_bounds

    found = run.sensitivities
    rows = np.stack([found.weights[key] for key in sorted(found.weights) if key[1] == site]).astype(np.float64)
    bounds = np.empty_like(rows)
    for sample in np.unique(found.sample):
        tokens = found.sample == sample
        rows[:, tokens] /= rows[:, tokens].mean(1, keepdims=True)
        for row, bound in zip(rows, bounds, strict=True):
            bound[tokens] = iqr_bounds(torch.from_numpy(row[tokens]), factor)[1].item()
    return rows, bounds
