"""Figures of the benchmarks: where the time goes, and how time and memory grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qig.bench.cost import PLAIN, STAGES
from qig.report.figures.style import MARKERS, PAGE, PALETTE, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = dict(zip(STAGES, ("#999999", "#D55E00", "#0072B2", "#009E73", "#56B4E9"), strict=True))


def stages(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """A bar a method, stacked by stage; a panel a bit setting."""
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    figure = new_figure(PAGE, 0.9 + 0.22 * len(rows) / len(settings))
    for axes, setting in zip(figure.subplots(1, len(settings), squeeze=False)[0], settings, strict=True):
        part = [row for row in rows if row["setting"] == setting]
        start = [0.0] * len(part)
        for stage in STAGES:
            values = [row[stage] for row in part]
            axes.barh(range(len(part)), values, 0.66, left=start, color=COLOURS[stage], label=stage)
            start = [a + b for a, b in zip(start, values, strict=True)]
        axes.set_yticks(range(len(part)), [row["method"] for row in part])
        axes.set(title=setting, xlabel="processor seconds a block and 1,000 tokens", ylim=(len(part) - 0.4, -0.6))
        axes.grid(axis="x")
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(STAGES), handlelength=1.2)
    return figure


def growth(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Left: seconds of all blocks against samples times blocks; right: peak memory against samples."""
    figure = new_figure(PAGE, 2.4)
    left, right = figure.subplots(1, 2)
    for place, ((name, label), chosen) in enumerate(_series(rows).items()):
        look = {"color": PALETTE[place], "marker": MARKERS[place], "label": label}
        work = sorted((row["samples"] * row["blocks"], row["seconds_a_block"] * row["blocks"]) for row in chosen)
        left.plot(*zip(*work, strict=True), **look)
        flat = sorted((row["samples"], row["peak_mib"]) for row in chosen if row["blocks"] == 1)
        if flat and name != "blocks":
            right.plot(*zip(*flat, strict=True), **look)
    left.set(xlabel="samples x blocks", ylabel="processor seconds", xscale="log", yscale="log")
    right.set(xlabel="samples", ylabel="peak beyond the model, MiB", xscale="log", yscale="log")
    for axes in (left, right):
        axes.grid()
    left.legend()
    return figure


def _series(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["method"] == PLAIN:
            whole = row["tokens_per_batch"] == 0
            key = ("whole", "plain, all samples at once") if whole else ("plain", "plain, micro-batches")
        elif row["blocks"] > 1:
            key = ("blocks", "qig, more blocks")
        else:
            key = (row["activations"], f"qig, activations on {row['activations']}")
        found.setdefault(key, []).append(row)
    return found
