"""How far integrated gradients are from adding up, against the number of integration nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qig.errors import StoreError
from qig.report.figures.identity import dagger, model_title
from qig.report.figures.style import MARKERS, PAGE, PALETTE, SITES, new_figure
from qig.report.records import Run

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = ("run", "model", "setting", "sigma", "quadrature", "nodes", "block", "site", "residual")
RULES = {"gauss_legendre": "Gauss–Legendre", "midpoint": "midpoint", "riemann_left": "left Riemann"}


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
    """Median residual over blocks with its range, a line a rule; a row a model and setting, a column a site.

    A number of nodes that one rule alone has, of several, is a reference: a line across the panel.
    """
    rows = list(frame.groupby(["model", "sigma", "setting"], sort=False))
    rules = list(dict.fromkeys(frame.quadrature))
    sites = [site for site in SITES if site in set(frame.site)]
    figure = new_figure(min(PAGE, 1.3 + 1.9 * len(sites)), 0.7 + 1.6 * len(rows))
    grid = figure.subplots(len(rows), len(sites), squeeze=False, sharex=True, sharey=True)
    names = list(dict.fromkeys(model_title(model, sigma) for (model, sigma, _), _ in rows))
    for line, ((model, sigma, setting), part) in zip(grid, rows, strict=True):
        for axes, site in zip(line, sites, strict=True):
            _panel(axes, part[part.site == site], rules)
            axes.set_title(f"{SITES[site]} · {setting.upper()}"
                           + (f"\n{model_title(model, sigma)}" if len(names) > 1 else ""))
        line[0].set_ylabel("relative residual")
    for axes in grid[-1]:
        axes.set_xlabel("integration nodes")
    handles = {name: handle for axes in figure.axes for handle, name in zip(*axes.get_legend_handles_labels(),
                                                                            strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    note = dagger(names).strip()
    figure.suptitle("Completeness" + (f": {names[0]}" if len(names) == 1 else "") + (f" ({note})" if note else ""))
    return figure


def _panel(axes: Axes, part: pd.DataFrame, rules: Sequence[str]) -> None:
    users = part.groupby("nodes").quadrature.nunique()
    alone = set(users.index[users == 1]) if len(rules) > 1 else set()
    for nodes, found in part[part.nodes.isin(alone)].groupby("nodes"):
        axes.axhline(found.residual.median(), color="black", linestyle=":", label=f"{nodes:,} nodes")
    swept = part[~part.nodes.isin(alone)]
    for index, rule in enumerate(rules):
        _line(axes, swept[swept.quadrature == rule], PALETTE[index], MARKERS[index], RULES.get(rule, rule))
    axes.set_xscale("log", base=2)
    nodes = sorted(swept.nodes.unique())
    axes.set_xticks(nodes, [str(node) for node in nodes])
    axes.minorticks_off()
    axes.set_yscale("log")
    axes.grid()


def _line(axes: Axes, part: pd.DataFrame, colour: str, marker: str, name: str) -> None:
    if part.empty:
        return
    spread = part.groupby("nodes").residual.agg(["min", "median", "max"])
    axes.fill_between(spread.index, spread["min"], spread["max"], color=colour, alpha=0.12, linewidth=0)
    axes.plot(spread.index, spread["median"], color=colour, marker=marker, label=name)
