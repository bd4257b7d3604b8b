"""Weights of tokens with massive activations beside those of other tokens, by site (``qig.report.massive``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qig.report.figures.identity import subject
from qig.report.figures.style import MARKERS, PAGE, PALETTE, SITES, new_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

COLUMNS = ("run", "method", "model", "setting", "sigma", "site", "class", "tokens", "share", "weight", "weight_share",
           "top", "auc")  # fmt: skip


def draw(frame: pd.DataFrame) -> Figure:
    """A line a site: mean weight of each class of tokens relative to uniform, and how well weights tell them apart."""
    sites, classes = list(dict.fromkeys(frame.site)), list(dict.fromkeys(frame["class"]))
    figure = new_figure(PAGE, 1.5 + 0.36 * len(sites))
    weights, apart = figure.subplots(1, 2, sharey=True)
    for index, name in enumerate(classes):
        part = frame[frame["class"] == name]
        heights = [sites.index(site) + 0.11 * (index - (len(classes) - 1) / 2) for site in part.site]
        style = {"color": PALETTE[index], "marker": MARKERS[index], "linestyle": "none"}
        share = 100 * part.share.iloc[0]
        weights.plot(part.weight, heights, label=f"{name} ({share:.2g}% of tokens)", **style)
        apart.plot(part.auc, heights, **style)
    weights.set_xscale("log", base=2)
    weights.xaxis.set_major_formatter("{x:g}")
    low, high = weights.get_xlim()
    weights.set_xlim(min(low, 0.5), max(high, 2.0))  # two labelled powers of two at the least
    weights.axvline(1, color="black", linewidth=0.7)
    apart.axvline(0.5, color="black", linewidth=0.7)
    apart.set_xlim(0, 1)
    weights.set_yticks(range(len(sites)), [SITES.get(site, site) for site in sites])
    weights.set_ylim(len(sites) - 0.5, -0.5)
    weights.set_xlabel("mean weight relative to uniform")
    apart.set_xlabel("AUC: weighs more than a token outside the class")
    for axes in (weights, apart):
        axes.grid(axis="x")
    figure.legend(*weights.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(f"Massive activations: {subject(frame)}")
    return figure
