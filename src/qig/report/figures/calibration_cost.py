"""What a calibration costs: seconds by stage, and peak memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qig.errors import StoreError
from qig.report.cells import seconds
from qig.report.figures.identity import dagger, labels, model_title
from qig.report.figures.style import PAGE, new_figure
from qig.report.records import Run

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = ("run", "model", "setting", "sigma", "label", "quantity", "part", "value")
STAGES = {"calibration": ("samples", "#000000", ""), "capture": ("capture", "#999999", ""),
          "attribution": ("attribution", "#D55E00", "////"), "search": ("search", "#0072B2", ""),
          "rounding": ("rounding", "#009E73", "\\\\\\\\"), "propagation": ("propagation", "#56B4E9", "....")}
MEMORY = {"peak_host_bytes": ("host", "#0072B2", ""), "peak_device_bytes": ("device", "#E69F00", "////")}


def data(runs: Sequence[Run], names: Sequence[str] | None = None) -> pd.DataFrame:
    """A row a quantized run, quantity (``seconds``, ``bytes``) and part of it (stage; host or device memory).

    ``names``: what the runs are called, if not by their methods. StoreError when no run was quantized with
    calibration samples.
    """
    import pandas as pd

    rows = []
    for run, name in zip(runs, names or labels(runs), strict=True):
        if not (run.record["stages"].get("calibration") or {}).get("samples"):
            continue
        about = {"run": run.id, "model": run.model, "setting": run.setting, "sigma": run.outlier_sigma, "label": name}
        rows += [about | {"quantity": "seconds", "part": stage, "value": run.record["timings"].get(stage) or 0.0}
                 for stage in STAGES]
        rows += [about | {"quantity": "bytes", "part": part, "value": run.record["memory"][part]}
                 for part in MEMORY if run.record["memory"].get(part)]
    if not rows:
        raise StoreError("no calibration cost to draw: no run was quantized with calibration samples")
    return pd.DataFrame(rows)


def draw(frame: pd.DataFrame) -> Figure:
    """Left: seconds, stacked by stage; right: peak memory while quantizing. A bar a run."""
    runs = frame.drop_duplicates("run")
    several = len(runs[["model", "setting", "sigma"]].drop_duplicates()) > 1
    names = [f"{row.label} · {model_title(row.model, row.sigma)} · {row.setting}" if several else row.label
             for row in runs.itertuples()]
    figure = new_figure(PAGE, 0.95 + 0.2 * len(runs))
    left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": [1.6, 1]})
    _bars(left, frame[frame.quantity == "seconds"], runs.run.tolist(), STAGES, seconds, stacked=True)
    _bars(right, frame[frame.quantity == "bytes"], runs.run.tolist(), MEMORY, _mebibytes, stacked=False)
    left.set_yticks(range(len(names)), names)
    below = dagger(map(model_title, runs.model, runs.sigma))
    left.set(ylim=(len(names) - 0.4, -0.6), xlabel=f"calibration, seconds{below}")
    right.set_xlabel("peak memory of the whole process, MiB")
    for axes in (left, right):
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.margins(x=0.16)
    handles, parts = left.get_legend_handles_labels()
    more = right.get_legend_handles_labels() if frame[frame.quantity == "bytes"].part.nunique() > 1 else ([], [])
    figure.legend(handles + more[0], parts + more[1], loc="outside lower center", ncols=8, handlelength=1.2)
    first = frame.iloc[0]
    if not several:
        figure.suptitle(f"Cost of calibration: {model_title(first.model, first.sigma)} · {first.setting}")
    return figure


def _bars(axes: Axes, part: pd.DataFrame, runs: list[str], look: dict, style, *, stacked: bool) -> None:
    import numpy as np

    scale = 1.0 if stacked else 2.0**-20
    table = part.pivot(index="run", columns="part", values="value").reindex(runs)
    present = [name for name in look if name in table and table[name].sum() > 0]
    start, height = np.zeros(len(runs)), 0.66 if stacked else 0.66 / max(len(present), 1)
    for index, name in enumerate(present):
        title, colour, hatch = look[name]
        shift = 0.0 if stacked else (index - (len(present) - 1) / 2) * height
        values = table[name].fillna(0).to_numpy() * scale
        axes.barh(np.arange(len(runs)) + shift, values, height, left=start if stacked else None, color=colour,
                  hatch=hatch, edgecolor="white", linewidth=0.3, label=title)
        start = start + values if stacked else start
        if not stacked:
            _annotate(axes, values, np.arange(len(runs)) + shift, [style(value / scale) for value in values])
    if stacked:
        _annotate(axes, start, np.arange(len(runs)), [style(value) for value in start])


def _mebibytes(value: float) -> str:
    return f"{value / 2**20:,.0f}"


def _annotate(axes: Axes, values, heights, texts: Sequence[str]) -> None:
    for value, height, text in zip(values, heights, texts, strict=True):
        axes.annotate(text, (value, height), (2, 0), textcoords="offset points", va="center", fontsize=6.5)
