"""How far integrated gradients are from adding up, against the number of integration nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qig.errors import StoreError
from qig.report.figures.style import COLUMN, MARKERS, PALETTE, SITES, new_figure
from qig.report.records import Run

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = ("run", "model", "setting", "sigma", "quadrature", "nodes", "block", "site", "residual")
RULES = {"gauss_legendre": "Gauss–Legendre", "midpoint": "midpoint", "riemann_left": "left Riemann"}
LINES = {"attn_in": "-", "mlp_in": "--", "attn_out": ":", "mlp_out": "-."}


def data(runs: Sequence[Run]) -> pd.DataFrame:
    """A row a run and site that was integrated: rule, nodes used, relative completeness residual.

    Sites with a closed form (0 nodes) have nothing to show. StoreError unless two numbers of nodes are there.
    """
    import pandas as pd

    rows = [{"run": run.id, "model": run.model, "setting": run.setting, "sigma": run.outlier_sigma,
             "quadrature": run.config["sensitivity"]["quadrature"], "nodes": site["nodes"], "block": site["block"],
             "site": site["site"], "residual": site["completeness"]}
            for run in runs if "quadrature" in run.config["sensitivity"]
            for site in run.record["sites"] if site["nodes"]]
    if len({row["nodes"] for row in rows}) < 2:
        raise StoreError("no completeness against nodes to draw: expected runs with at least two numbers of nodes")
    return pd.DataFrame(rows)


def draw(frame: pd.DataFrame) -> Figure:
    """Median residual over blocks with its range, a line a rule and site, both axes logarithmic."""
    figure = new_figure(COLUMN, 2.45)
    axes = figure.subplots()
    rules = list(dict.fromkeys(frame.quadrature))
    for index, rule in enumerate(rules):
        for site in (site for site in SITES if site in set(frame.site)):
            part = frame[(frame.quadrature == rule) & (frame.site == site)]
            name = f"{RULES.get(rule, rule)}, {SITES[site].removesuffix(' input')}"
            _line(axes, part, PALETTE[index], MARKERS[index], LINES[site], name)
    axes.set_xscale("log", base=2)
    nodes = sorted(frame.nodes.unique())
    axes.set_xticks(nodes, [str(node) for node in nodes], minor=False)
    axes.minorticks_off()
    axes.set(yscale="log", xlabel="integration nodes", ylabel="relative completeness residual")
    axes.grid()
    figure.legend(loc="outside lower center", ncols=len(rules))
    return figure


def _line(axes: Axes, part: pd.DataFrame, colour: str, marker: str, line: str, name: str) -> None:
    if part.empty:
        return
    spread = part.groupby("nodes").residual.agg(["min", "median", "max"])
    axes.fill_between(spread.index, spread["min"], spread["max"], color=colour, alpha=0.15, linewidth=0)
    axes.plot(spread.index, spread["median"], line, color=colour, marker=marker, label=name)
