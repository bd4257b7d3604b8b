"""What the search saw: the loss of every exponent it tried, a curve a block, a panel a site."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qig.errors import StoreError
from qig.report import summaries
from qig.report.figures.identity import identity, subject
from qig.report.figures.style import COLOURS, PAGE, SITES, new_figure
from qig.report.records import Run

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = ("run", "method", "model", "setting", "sigma", "site", "block", "exponent", "loss", "chosen")


def data(run: Run) -> pd.DataFrame:
    """A row a site, block and exponent: ``loss`` relative to the least, and whether it was ``chosen``.

    StoreError when no site of the run was searched.
    """
    import pandas as pd

    names, rows = summaries.search_curves(run)
    if not rows:
        raise StoreError(f"run {run.id} ({run.method}) has no search curves: no site of it was searched")
    frame = pd.DataFrame(rows, columns=names)
    frame = frame.dropna(subset="loss")  # where the search stopped early
    frame["loss"] /= frame.groupby(["block", "site"]).loss.transform("min")
    return pd.DataFrame(identity(run), index=frame.index).join(frame)


def draw(frame: pd.DataFrame) -> Figure:
    """Loss over exponent, both sites and blocks on one scale; the chosen exponents are marked."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    sites = [site for site in SITES if site in set(frame.site)]
    figure = new_figure(PAGE, 2.0)
    panels = figure.subplots(1, len(sites), sharey=True, squeeze=False)[0]
    # The palette's last quarter is too pale for lines on paper.
    norm = Normalize(frame.block.min(), max(frame.block.max() * 1.25, 1))
    for axes, site in zip(panels, sites, strict=True):
        for block, curve in frame[frame.site == site].groupby("block"):
            _curve(axes, curve, colormaps[COLOURS](norm(block)))
        axes.set(title=SITES[site], xlabel="exponent r", yscale="log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(axis="y")
    panels[0].set_ylabel("weighted error / least error")
    blocks = sorted(frame.block.unique())
    bar = figure.colorbar(ScalarMappable(norm, COLOURS), ax=list(panels), pad=0.01, aspect=28, label="block",
                          ticks=blocks[::max(1, len(blocks) // 6)])
    bar.ax.set_ylim(blocks[0], max(blocks[-1], blocks[0] + 1e-6))
    bar.outline.set_linewidth(0.6)
    figure.suptitle(f"Search for the scales: {subject(frame)}; ● chosen")
    return figure


def _curve(axes: Axes, curve: pd.DataFrame, colour) -> None:
    axes.plot(curve.exponent, curve.loss, color=colour)
    chosen = curve[curve.chosen.astype(bool)]
    axes.plot(chosen.exponent, chosen.loss, "o", color=colour, markeredgecolor="black", markeredgewidth=0.5, zorder=3)
