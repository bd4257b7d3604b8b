"""Differences between methods as a forest plot: a row a run, its paired difference and the 95% interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from qig.errors import StoreError
from qig.report.cells import METHODS, signed
from qig.report.figures.identity import dagger, label, model_title
from qig.report.figures.style import COLUMN, new_figure
from qig.report.metrics import METRICS, Metric, metric_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACCURACY = METRICS["accuracy"]
COLUMNS = ("run", "group", "label", "against", "difference", "low", "high")
BASELINES = {"16bit": "16 bit", "rtn": METHODS["rtn"]}


def data(frame: pd.DataFrame, against: str = "rtn") -> pd.DataFrame:
    """A row a run with a paired difference of accuracy, in points, from a comparison's ``vs_<against>`` columns.

    StoreError when no row has such a difference.
    """
    config = frame.attrs.get("config", [])
    named = frame.assign(
        group=[f"{model_title(model, sigma)} · {setting}" for model, setting, sigma in
               zip(frame.model, frame.setting, frame["model.outliers.sigma"], strict=True)],
        label=[label(row["method"], {key: row[key] for key in config}) for _, row in frame.iterrows()])
    return _differences(named, against, BASELINES.get(against, against))


def data_of_cells(frame: pd.DataFrame, keys: Sequence[str], control: str, sigmas: Mapping[str, float]) -> pd.DataFrame:
    """The same from an experiment's cells: their lines of the first metric, differences in ``vs_<control>``.

    ``keys``: the columns that name a cell; ``arm`` becomes the label, the others a group. ``runs`` has the ids of a
    cell's runs, apart by spaces; ``sigmas``: id of a run to the spread of its model's synthetic outliers.
    """
    chosen = frame[frame.metric == frame.metric.iloc[0]]
    ids = [str(runs).split()[0] for runs in chosen.runs]
    others = [key for key in keys if key != "arm"]
    groups = [" · ".join(str(row[key]) for key in others) + (" †" if sigmas[run] > 0 else "")
              for run, (_, row) in zip(ids, chosen.iterrows(), strict=True)]
    metric = metric_of(chosen.metric.iloc[0])
    return _differences(chosen.assign(run=ids, group=groups, label=chosen.arm), control, control, metric)


def _differences(frame: pd.DataFrame, against: str, title: str, metric: Metric = ACCURACY) -> pd.DataFrame:
    import pandas as pd

    names = [f"vs_{against}", f"vs_{against}_low", f"vs_{against}_high"]
    if not set(names) <= set(frame.columns) or frame[names[0]].isna().all():
        raise StoreError(f"no differences from {against} to draw: expected values in the columns {', '.join(names)}")
    kept = frame[frame[names[0]].notna()]
    shorts = ("difference", "low", "high")
    numbers = {short: metric.scale * kept[name] for short, name in zip(shorts, names, strict=True)}
    found = pd.DataFrame({"run": kept.run, "group": kept.group, "label": kept.label, "against": title, **numbers})
    return found if metric is ACCURACY else found.assign(metric=metric.title, unit=metric.unit, digits=metric.digits)


def draw(frame: pd.DataFrame) -> Figure:
    """Intervals in groups; filled where zero lies outside, with the numbers at the right."""
    groups = list(frame.groupby("group", sort=False))
    digits = int(frame.digits.iloc[0]) if "digits" in frame else 1
    lines = len(frame) + len(groups)
    figure = new_figure(COLUMN, 0.85 + 0.155 * lines)
    axes = figure.subplots()
    axes.axvline(0, color="black", linewidth=0.7)
    height, ticks = 0.0, []
    for title, part in groups:
        axes.annotate(title, (0.0, height), (3, 0), va="center",
                      xycoords=("axes fraction", "data"), textcoords="offset points", fontstyle="italic",
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})
        for row in part.itertuples():
            height += 1
            shown = [signed(value, digits) for value in (row.difference, row.low, row.high)]
            numbers = f"{shown[0]} [{shown[1]}, {shown[2]}]"
            ticks.append((height, row.label, numbers))
            _interval(axes, height, row)
        height += 1
    _ticks(axes, ticks)
    against = frame.against.iloc[0]
    axes.set_ylim(height - 0.4, -0.6)
    what = f"{frame.metric.iloc[0]} over {against}, {frame.unit.iloc[0]}" if "unit" in frame else (
        f"points of accuracy over {against}")
    axes.set_xlabel(f"{what}, 95% interval{dagger(frame.group)}")
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    return figure


def _interval(axes: Axes, height: float, row) -> None:
    clear = row.low > 0 or row.high < 0
    axes.plot([row.low, row.high], [height, height], color="#0072B2", linewidth=1.4, solid_capstyle="butt")
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
