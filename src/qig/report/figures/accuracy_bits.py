"""Accuracy against the bits of a weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qig.errors import StoreError
from qig.report.figures.identity import dagger, labels, model_title
from qig.report.figures.style import COLUMN, PAGE, new_figure, series_styles
from qig.report.records import Run

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = ("run", "method", "model", "sigma", "label", "weight_bits", "activation_bits", "accuracy", "low", "high")
SIXTEEN = 16
NEAR = 12.0
"""Points below 16 bit that the second row shows."""


def data(frame: pd.DataFrame, runs: Sequence[Run], names: Sequence[str] | None = None) -> pd.DataFrame:
    """A row a run: bits of its weights and activations (16: not quantized) and its accuracy in percent.

    ``frame``: a comparison (``run, accuracy, accuracy_low, accuracy_high``) of ``runs``; ``names``: what the runs are
    called, if not by their methods. StoreError unless some model is there in at least two weight bit widths below 16.
    """
    import pandas as pd

    rows = []
    titles = dict(zip((run.id for run in runs), names or labels(runs), strict=True))
    known = {run.id: run for run in runs}
    for row in frame.to_dict("records"):
        run = known[row["run"]]
        quant = run.config["quant"]
        weights, activations = (quant.get(part) or {"bits": SIXTEEN} for part in ("weights", "activations"))
        rows.append({"run": run.id, "method": run.method, "model": run.model, "sigma": run.outlier_sigma,
                     "label": titles[run.id], "weight_bits": weights["bits"], "activation_bits": activations["bits"],
                     "accuracy": 100 * row["accuracy"], "low": 100 * row["accuracy_low"],
                     "high": 100 * row["accuracy_high"]})
    found = pd.DataFrame(rows)
    quantized = found[found.weight_bits < SIXTEEN]
    if quantized.empty or quantized.groupby(["model", "sigma", "activation_bits"]).weight_bits.nunique().max() < 2:
        raise StoreError("no accuracy against bits to draw: expected a model with weights of at least two bit widths")
    return found


def draw(frame: pd.DataFrame) -> Figure:
    """Methods as lines with 95% intervals, a column a model and activation width; 16 bit as a dashed line.

    Where a method falls far behind, a second row shows what happens near 16 bit.
    """
    quantized = frame[frame.weight_bits < SIXTEEN]
    panels = [(key, part) for key, part in quantized.groupby(["model", "sigma", "activation_bits"], sort=False)
              if part.weight_bits.nunique() > 1]
    styles = series_styles(quantized.label.tolist(), quantized.method.tolist())
    reference = {model: part.accuracy.iloc[0] for model, part in
                 frame[frame.weight_bits == SIXTEEN].groupby(["model", "sigma"])}
    far = any(part.accuracy.min() < reference.get(key[:2], -math.inf) - NEAR for key, part in panels)
    figure = new_figure(COLUMN if len(panels) == 1 else PAGE, 3.5 if far else 2.3)
    grid = figure.subplots(2 if far else 1, len(panels), squeeze=False, sharex="col", sharey="row")
    for column, ((model, sigma, activations), part) in zip(grid.T, panels, strict=True):
        for axes in column:
            _panel(axes, part, reference.get((model, sigma)), styles)
        column[0].set_title(f"{model_title(model, sigma)}, {activations}-bit activations")
        column[-1].set_xlabel("bits of a weight" + dagger([model_title(model, sigma)]))
    grid[0, 0].set_ylabel("accuracy, %")
    if far:
        near = frame[frame.accuracy > max(reference.values()) - NEAR]
        low, high = near.low.fillna(near.accuracy).min(), frame.high.fillna(frame.accuracy).max()
        grid[1, 0].set(ylabel="the same near 16 bit", ylim=(low - 0.5, high + 0.5))
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5 if len(panels) == 1 else 8, handlelength=1.6,
                  columnspacing=1.2)
    return figure


def _panel(axes: Axes, part: pd.DataFrame, sixteen_bit: float | None, styles: dict) -> None:
    if sixteen_bit is not None:
        axes.axhline(sixteen_bit, color="black", linestyle="--", linewidth=0.8, label="16 bit")
    present = [name for name in styles if name in set(part.label)]
    for index, name in enumerate(present):
        line = part[part.label == name].sort_values("weight_bits")
        colour, marker = styles[name]
        # Beside each other, or equal points would hide one another.
        shift = 0.06 * (index - (len(present) - 1) / 2)
        axes.errorbar(line.weight_bits + shift, line.accuracy, [line.accuracy - line.low, line.high - line.accuracy],
                      color=colour, marker=marker, elinewidth=0.8, capsize=1.5, label=name)
    bits = sorted(part.weight_bits.unique())
    axes.set(xticks=bits, xlim=(bits[0] - 0.3, bits[-1] + 0.3))
    axes.grid(axis="y")
