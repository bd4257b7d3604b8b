"""Differences between methods as a forest plot: a row a run, its paired difference and the 95% interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qig.errors import StoreError
from qig.report.cells import METHODS, difference
from qig.report.figures.identity import dagger, label, model_and_setting
from qig.report.figures.style import COLUMN, new_figure
from qig.report.metrics import METRICS, Metric, metric_of
from qig.report.records import Run

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACCURACY = METRICS["accuracy"]
COLUMNS = ("run", "group", "label", "against", "difference", "low", "high")
Printed = Callable[[str, Any], str]
"""A key and its value to what is printed for it."""
BASELINES = {"16bit": "16 bit", "rtn": METHODS["rtn"]}


def _plain(_: str, value: Any) -> str:
    return str(value)


def data(frame: pd.DataFrame, against: str = "rtn") -> pd.DataFrame:
    """A row a run with a paired difference of accuracy, in points, from a comparison's ``vs_<against>`` columns.

    StoreError when no row has such a difference.
    """
    config = frame.attrs.get("config", [])
    named = frame.assign(
        group=list(map(model_and_setting, frame.model, frame["model.outliers.sigma"], frame.setting)),
        label=[label(row["method"], {key: row[key] for key in config}) for _, row in frame.iterrows()])
    return _differences(named, against, BASELINES.get(against, against))


def data_of_cells(
    frame: pd.DataFrame, keys: Sequence[str], control: str, runs: Mapping[str, Run], printed: Printed = _plain
) -> pd.DataFrame:
    """The same from an experiment's cells: their lines of the first metric, differences in ``vs_<control>``.

    ``keys``: the columns that name a cell; ``arm`` becomes the label, the others a group, in the words of ``printed``.
    ``frame.runs`` has the ids of a cell's runs, apart by spaces; ``runs``: id to run. Where Holm's p is known, it says
    what is ``clear``.
    """
    chosen = frame[frame.metric == frame.metric.iloc[0]]
    ids = [str(names).split()[0] for names in chosen.runs]
    others = [key for key in keys if key != "arm"]
    groups = [" · ".join(_named(key, printed(key, row[key])) for key in others) or _group(runs[run])
              for run, (_, row) in zip(ids, chosen.iterrows(), strict=True)]
    groups = [group + (" †" if runs[run].outlier_sigma > 0 and "†" not in group else "")
              for group, run in zip(groups, ids, strict=True)]
    metric = metric_of(chosen.metric.iloc[0])
    named = chosen.assign(run=ids, group=groups, label=[printed("arm", arm) for arm in chosen.arm])
    return _differences(named, control, printed("arm", control), metric)


def _group(run: Run) -> str:
    return model_and_setting(run.model, run.outlier_sigma, run.setting)


def _named(key: str, value: str) -> str:
    """``samples 64``: a number needs the name of its key."""
    return f"{key.rpartition('.')[2].replace('_', ' ')} {value}" if value.replace(".", "").isdecimal() else value


def _differences(frame: pd.DataFrame, against: str, title: str, metric: Metric = ACCURACY) -> pd.DataFrame:
    import pandas as pd

    names = [f"vs_{against}", f"vs_{against}_low", f"vs_{against}_high"]
    if not set(names) <= set(frame.columns) or frame[names[0]].isna().all():
        raise StoreError(f"no differences from {against} to draw: expected values in the columns {', '.join(names)}")
    kept = frame[frame[names[0]].notna()]
    shorts = ("difference", "low", "high")
    numbers = {short: metric.scale * kept[name] for short, name in zip(shorts, names, strict=True)}
    found = pd.DataFrame({"run": kept.run, "group": kept.group, "label": kept.label, "against": title, **numbers})
    if f"vs_{against}_holm" in kept:
        found["clear"] = kept[f"vs_{against}_holm"] < 0.05
    return found if metric is ACCURACY else found.assign(metric=metric.title, unit=metric.unit, digits=metric.digits)


def draw(frame: pd.DataFrame) -> Figure:
    """Intervals in groups, with the numbers at the right.

    Filled: different from zero, after Holm's correction where there is one. The axis shows where most of them are; what
    lies far outside is an arrow at its edge.
    """
    groups = list(frame.groupby("group", sort=False))
    digits = int(frame.digits.iloc[0]) if "digits" in frame else 1
    lines = len(frame) + len(groups)
    figure = new_figure(COLUMN, 0.85 + 0.155 * lines)
    axes = figure.subplots()
    axes.axvline(0, color="black", linewidth=0.7)
    height, ticks = 0.0, []
    edge = _edge(frame)
    if edge < math.inf:
        axes.set_xlim(-edge, edge)
    for title, part in groups:
        axes.annotate(title, (0.0, height), (3, 0), va="center",
                      xycoords=("axes fraction", "data"), textcoords="offset points", fontstyle="italic",
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})
        for row in part.itertuples():
            height += 1
            numbers = difference(row.difference, row.low, row.high, scale=1, digits=digits)
            ticks.append((height, row.label, numbers))
            _interval(axes, height, row, edge)
        height += 1
    _ticks(axes, ticks)
    against = frame.against.iloc[0]
    axes.set_ylim(height - 0.4, -0.6)
    what = f"{frame.metric.iloc[0]} in {frame.unit.iloc[0]}" if "unit" in frame else "accuracy in points"
    filled = "filled: p < 0.05 after Holm" if "clear" in frame else "filled: without 0"
    axes.set_xlabel(f"{what}, minus that of “{against}”\n95% intervals; {filled}{dagger(frame.group)}")
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    return figure


def _edge(frame: pd.DataFrame) -> float:
    """Where the axis ends on either side: infinity (matplotlib's own limits) unless a few would squeeze all others."""
    reach = frame[["low", "high", "difference"]].abs().max(axis=1)
    usual = 2 * float(reach.quantile(0.6, interpolation="lower"))
    return usual if 0 < usual < reach.max() / 2 else math.inf


def _interval(axes: Axes, height: float, row, edge: float) -> None:
    if abs(row.difference) > edge:
        end = math.copysign(edge, row.difference)
        axes.annotate("", (end, height), (0.86 * end, height), arrowprops={"arrowstyle": "->", "color": "#0072B2"})
        return
    clear = row.clear if hasattr(row, "clear") else row.low > 0 or row.high < 0
    low, high = max(row.low, -edge), min(row.high, edge)
    axes.plot([low, high], [height, height], color="#0072B2", linewidth=1.4, solid_capstyle="butt")
    axes.plot([row.difference], [height], "o", color="#0072B2", markerfacecolor="#0072B2" if clear else "white",
              markersize=4, zorder=3)


def _ticks(axes: Axes, ticks: Sequence[tuple[float, str, str]]) -> None:
    heights, names, numbers = zip(*ticks, strict=True)
    axes.set_yticks(heights, names)
    axes.tick_params(axis="y", length=0)
    right = axes.secondary_yaxis("right")
    right.set_yticks(heights, numbers)
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
