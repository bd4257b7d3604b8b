"""How large the inputs of a block's linears are: tokens x channels, two blocks, one linear a site."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qig.report.figures.style import KIND_COLOURS, PAGE, new_figure
from qig.report.figures.token_sensitivity import kind_legend

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = ("model", "sigma", "sample_id", "block", "linear", "channels", "position", "kind", "c0")
"""``c0, c1, ...``: channels, or the largest of neighbouring ones (``qig.report.activations``)."""


def draw(frame: pd.DataFrame) -> Figure:
    """A row a block, a column a linear, all on one logarithmic colour scale; a strip says what each token is."""
    import numpy as np
    from matplotlib.colors import LogNorm

    blocks, linears = list(dict.fromkeys(frame.block)), list(dict.fromkeys(frame.linear))
    figure = new_figure(PAGE, 0.8 + 1.55 * len(blocks))
    panels = figure.subplots(len(blocks), len(linears), squeeze=False, sharey=True)
    values = frame.filter(regex=r"^c\d+$").to_numpy()
    top = np.nanmax(values)
    # Three decades tell what stands out; the many small values below them are one colour.
    norm = LogNorm(top / 1000, top)
    for row, block in zip(panels, blocks, strict=True):
        for axes, linear in zip(row, linears, strict=True):
            part = frame[(frame.block == block) & (frame.linear == linear)]
            image = _panel(axes, part, norm)
        row[0].set_ylabel(f"block {block}\ntoken")
    for axes, linear in zip(panels[0], linears, strict=True):
        axes.set_title(f"input of {linear.rpartition('.')[2]}")
    for axes in panels[-1]:
        axes.set_xlabel("channel")
    bar = figure.colorbar(image, ax=list(panels.ravel()), pad=0.01, aspect=36, extend="min", label="magnitude |x|")
    bar.outline.set_linewidth(0.6)
    first = frame.iloc[0]
    kind_legend(figure, frame.drop_duplicates("position").kind)
    outliers = f" with synthetic outliers (σ = {first.sigma:g})" if first.sigma else ""
    figure.suptitle(f"Activation magnitude: {first.model}{outliers}, 16 bit; {first.sample_id}")
    return figure


def _panel(axes: Axes, part: pd.DataFrame, norm):
    import numpy as np
    from matplotlib.colors import ListedColormap

    values = part.filter(regex=r"^c\d+$").dropna(axis=1).to_numpy()
    channels = int(part.channels.iloc[0])
    image = axes.imshow(np.maximum(values, 1e-30), aspect="auto", cmap="magma", norm=norm, interpolation="nearest",
                        extent=(0, channels, len(values), 0))
    names = list(KIND_COLOURS)
    strip = axes.inset_axes((-0.05, 0, 0.035, 1))
    strip.imshow(np.array([[names.index(kind)] for kind in part.kind]), aspect="auto", interpolation="nearest",
                 cmap=ListedColormap(list(KIND_COLOURS.values())), vmin=0, vmax=len(names) - 1)
    strip.set(xticks=[], yticks=[])
    axes.set_xticks([0, channels // 2, channels])
    axes.tick_params(axis="y", pad=8, length=0)
    axes.spines[["top", "right"]].set_visible(True)
    return image
