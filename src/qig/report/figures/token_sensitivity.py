"""Where a method looks: the token weights of one calibration sample, block by block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qig.errors import StoreError
from qig.report.figures.identity import identity, subject
from qig.report.figures.style import COLOURS, KIND_COLOURS, PAGE, SITES, new_figure
from qig.report.records import TOKEN_KINDS, Run, Sensitivities

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

LIMITS = (2.0, 16.0)
"""The colour scale spans 1/limit to limit times the uniform weight; the limit, a power of two, lies between these."""
COLUMNS = ("run", "method", "model", "setting", "sigma", "sample", "site", "block", "position", "kind", "weight")


def data(run: Run, sample: int = 0) -> pd.DataFrame:
    """A row a site, block and token of one calibration sample: ``weight`` relative to uniform (lambda times tokens).

    StoreError when the run has no sensitivities, or no such ``sample``.
    """
    import pandas as pd

    chosen = run.sensitivities.select(sample)
    kinds = [TOKEN_KINDS[code] for code in chosen.kinds.tolist()]
    parts = []
    for site in _sites(run, chosen):
        for block, row in zip(chosen.blocks, relative_weights(chosen, site), strict=True):
            parts.append(pd.DataFrame({"site": site, "block": block, "position": range(len(row)), "kind": kinds,
                                       "weight": row}))
    frame = pd.concat(parts, ignore_index=True)
    return pd.DataFrame(identity(run) | {"sample": sample}, index=frame.index).join(frame)


def draw(frame: pd.DataFrame) -> Figure:
    """Blocks x tokens, a panel a site, over a strip that says what each token is."""
    from matplotlib.colors import LogNorm

    sites = list(dict.fromkeys(frame.site))
    panels = {site: matrix(frame[frame.site == site]) for site in sites}
    blocks = max(len(panel) for panel in panels.values())
    # Short rows for many blocks: 28 of them still fit half a page.
    heat = min(2.4, max(0.62, 0.13 * blocks))
    figure = new_figure(PAGE, 1.1 + len(panels) * (heat + 0.22))
    grid = figure.subplots(len(panels) + 1, 1, sharex=True,
                           gridspec_kw={"height_ratios": [heat] * len(panels) + [0.14]})
    *heats, band = grid
    limit = colour_limit([panel.to_numpy() for panel in panels.values()])
    kinds = frame.drop_duplicates("position").set_index("position").kind.sort_index()
    for axes, (site, panel) in zip(heats, panels.items(), strict=True):
        image = heat_map(axes, panel, LogNorm(1 / limit, limit))
        axes.set_title(SITES.get(site, site))
        mark_borders(axes, kinds)
    colour_bar(figure, image, heats, limit)
    kind_band(band, kinds)
    figure.suptitle(f"Token sensitivity: {subject(frame)}; calibration sample {frame['sample'].iloc[0]}")
    return figure


def relative_weights(chosen: Sensitivities, site: str) -> np.ndarray:
    """Weights of one sample relative to uniform, float [blocks, tokens], mean 1; NaN for a block without this site.

    Weights that sum to 1 over the whole corpus instead of the sample are brought to the sample first.
    """
    import numpy as np

    tokens = len(chosen.kinds)
    rows = np.stack([chosen.weights.get((block, site), np.full(tokens, np.nan)) for block in chosen.blocks])
    total = rows.astype(np.float64).sum(axis=1, keepdims=True)
    return np.divide(rows * tokens, total, out=np.full(rows.shape, np.nan), where=total > 0)


def colour_limit(panels: Sequence[np.ndarray]) -> float:
    """The least power of two within LIMITS that holds 95% of the relative weights between its inverse and itself."""
    import numpy as np

    known = np.concatenate([panel[np.isfinite(panel) & (panel > 0)] for panel in panels])
    octaves = np.ceil(np.quantile(np.abs(np.log2(known)), 0.95) - 1e-6) if known.size else 0
    return float(np.clip(2.0**octaves, *LIMITS))


def matrix(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of one site as blocks x positions."""
    return frame.pivot(index="block", columns="position", values="weight")


def heat_map(axes: Axes, panel: pd.DataFrame, norm) -> AxesImage:
    """Weights on a logarithmic scale."""
    # A weight of zero has no logarithm: it is drawn as the scale's lower end, which the colour bar's arrow covers.
    image = axes.imshow(panel.clip(lower=1e-12), aspect="auto", interpolation="nearest", cmap=COLOURS, norm=norm)
    step = max(1, len(panel) // 6)
    axes.set_yticks(range(0, len(panel), step), [str(block) for block in panel.index[::step]])
    axes.set_ylabel("block")
    axes.spines[["top", "right"]].set_visible(True)
    axes.tick_params(axis="x", bottom=False, labelbottom=False)
    return image


def colour_bar(figure: Figure, image: AxesImage, heats: Sequence[Axes], limit: float) -> None:
    """The scale of relative weights, in powers of two."""
    octaves = round(math.log2(limit))
    ticks = [2.0**octave for octave in range(-octaves, octaves + 1)]
    bar = figure.colorbar(image, ax=list(heats), extend="both", pad=0.01, aspect=32, ticks=ticks)
    bar.ax.set_yticklabels([f"{tick:g}" if tick >= 1 else f"1/{1 / tick:g}" for tick in ticks])
    bar.ax.minorticks_off()
    bar.outline.set_linewidth(0.6)
    bar.set_label("weight relative to uniform")


def mark_borders(axes: Axes, kinds: pd.Series) -> None:
    """White lines where one kind of token ends and another begins."""
    borders = [position - 0.5 for position, changed in (kinds != kinds.shift()).items() if changed and position]
    for border in borders:
        axes.axvline(border, color="white", linewidth=0.7)


def kind_band(axes: Axes, kinds: pd.Series) -> None:
    """A strip of one coloured cell a token, and the legend of its colours below."""
    import numpy as np
    from matplotlib.colors import ListedColormap

    names = list(KIND_COLOURS)
    axes.imshow(np.array([[names.index(kind) for kind in kinds]]), aspect="auto", interpolation="nearest",
                cmap=ListedColormap(list(KIND_COLOURS.values())), vmin=0, vmax=len(names) - 1)
    axes.set_yticks([])
    axes.set_ylabel("kind", rotation=0, ha="right", va="center")
    axes.spines[["top", "right"]].set_visible(True)
    axes.set_xlabel("token position")
    kind_legend(axes.figure, kinds)


def kind_legend(figure: Figure, kinds: pd.Series) -> None:
    """The kinds that occur and how many tokens each has, below the figure."""
    from matplotlib.patches import Patch

    counts = kinds.value_counts()
    handles = [Patch(facecolor=colour, edgecolor="black", linewidth=0.4, label=f"{kind} ({counts[kind]})")
               for kind, colour in KIND_COLOURS.items() if kind in counts]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles),
                  title="token kind (number of tokens)")


def _sites(run: Run, chosen: Sensitivities) -> list[str]:
    present = {site for _, site in chosen.weights}
    if not present & set(SITES):
        got = ", ".join(sorted(present)) or "none"
        raise StoreError(f"run {run.id} has no sensitivities to draw: got sites {got}; expected one of "
                         f"{', '.join(SITES)}")
    return [site for site in SITES if site in present]
