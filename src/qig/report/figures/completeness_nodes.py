"""How far integrated gradients are from adding up, against the number of integration nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qig.errors import StoreError
from qig.report.figures.identity import dagger, model_title
from qig.report.figures.style import COLUMN, MARKERS, PAGE, PALETTE, SITES, new_figure
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
    """Median residual over blocks with its range, a line a rule and site, a panel a model and setting."""
    panels = list(frame.groupby(["model", "sigma", "setting"], sort=False))
    rules = list(dict.fromkeys(frame.quadrature))
    figure = new_figure(COLUMN if len(panels) == 1 else PAGE, 2.5)
    for axes, ((model, sigma, setting), part) in zip(
        figure.subplots(1, len(panels), squeeze=False, sharey=True)[0], panels, strict=True
    ):
        _panel(axes, part, rules)
        axes.set_title(f"{model_title(model, sigma)} · {setting}")
        axes.set_xlabel("integration nodes" + dagger([model_title(model, sigma)]))
    first = figure.axes[0]
    first.set_ylabel("relative completeness residual")
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=len(rules))
    return figure


def _panel(axes: Axes, part: pd.DataFrame, rules: Sequence[str]) -> None:
    for index, rule in enumerate(rules):
        for site in (site for site in SITES if site in set(part.site)):
            name = f"{RULES.get(rule, rule)}, {SITES[site].removesuffix(' input')}"
            line = part[(part.quadrature == rule) & (part.site == site)]
            _line(axes, line, PALETTE[index], MARKERS[index], LINES[site], name)
    axes.set_xscale("log", base=2)
    nodes = sorted(part.nodes.unique())
    axes.set_xticks(nodes, [str(node) for node in nodes])
    axes.minorticks_off()
    axes.set_yscale("log")
    axes.grid()


def _line(axes: Axes, part: pd.DataFrame, colour: str, marker: str, line: str, name: str) -> None:
    if part.empty:
        return
    spread = part.groupby("nodes").residual.agg(["min", "median", "max"])
    axes.fill_between(spread.index, spread["min"], spread["max"], color=colour, alpha=0.15, linewidth=0)
    axes.plot(spread.index, spread["median"], line, color=colour, marker=marker, label=name)
