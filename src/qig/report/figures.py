"""Where a method looks: the token weights of one calibration sample, block by block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qig.errors import StoreError
from qig.report.cells import METHODS
from qig.report.records import TOKEN_KINDS, Run, Sensitivities

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

PANELS = {"attn_in": "attention input", "mlp_in": "MLP input"}
# Okabe and Ito's palette, in an order that also steps in lightness, so that a grey print keeps the kinds apart.
KIND_COLOURS = {"vision": "#0072B2", "prompt": "#E69F00", "answer": "#009E73", "special": "#E4E4E4"}
COLOURS = "cividis"
"""Steps evenly in lightness and looks the same to colour-blind readers, so it also survives a grey print."""
LIMITS = (2.0, 16.0)
"""The colour scale spans 1/limit to limit times the uniform weight; the limit, a power of two, lies between these."""


def token_sensitivity(run: Run, path: Path, sample: int = 0) -> list[Path]:
    """Draw blocks x tokens of the weight relative to uniform (lambda times number of tokens), one panel a site.

    Writes ``path`` with the suffixes .pdf and .png and returns both. StoreError when the run has no sensitivities,
    none at the drawn sites, or no such ``sample``.
    """
    chosen = run.sensitivities.select(sample)
    panels = {site: title for site, title in PANELS.items() if any(site == have for _, have in chosen.weights)}
    if not panels:
        got = ", ".join(sorted({site for _, site in chosen.weights})) or "none"
        raise StoreError(f"run {run.id} has no sensitivities to draw: got sites {got}; expected {' or '.join(PANELS)}")
    figure = _draw(run, chosen, panels, sample)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_suffix(suffix) for suffix in (".pdf", ".png")]
    for target in written:
        # A fixed date makes equal runs give equal files.
        metadata = {"CreationDate": None} if target.suffix == ".pdf" else None
        figure.savefig(target, dpi=200, metadata=metadata)
    return written


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
    """The least power of two within LIMITS that holds 99% of the relative weights between its inverse and itself."""
    import numpy as np

    known = np.concatenate([panel[np.isfinite(panel) & (panel > 0)] for panel in panels])
    octaves = np.ceil(np.quantile(np.abs(np.log2(known)), 0.99) - 1e-6) if known.size else 0
    return float(np.clip(2.0**octaves, *LIMITS))


def _draw(run: Run, chosen: Sensitivities, panels: dict[str, str], sample: int) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    blocks = len(chosen.blocks)
    # Short rows for many blocks: 28 of them still fit half a page.
    heat = min(3.2, max(1.1, 0.22 * blocks))
    figure = Figure(figsize=(7.0, 1.55 + len(panels) * (heat + 0.35)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(panels) + 1, 1, sharex=True, gridspec_kw={"height_ratios": [heat] * len(panels) + [0.2]})
    *heats, band = grid
    relative = {site: relative_weights(chosen, site) for site in panels}
    limit = colour_limit(list(relative.values()))
    for axes, (site, title) in zip(heats, panels.items(), strict=True):
        image = _heat_map(axes, relative[site], chosen.blocks, limit)
        axes.set_title(title, fontsize=9, loc="left")
    _colour_bar(figure, image, heats, limit)
    _kind_band(band, chosen.kinds)
    outliers = f" with synthetic outliers (σ = {run.outlier_sigma:g})" if run.outlier_sigma else ""
    method = METHODS.get(run.method, run.method)
    figure.suptitle(f"Token sensitivity of {method} in {run.setting}, calibration sample {sample}\n"
                    f"{run.model}{outliers}", fontsize=10)
    return figure


def _heat_map(axes: Axes, relative: np.ndarray, blocks: list[int], limit: float) -> AxesImage:
    import numpy as np
    from matplotlib.colors import LogNorm

    # A weight of zero has no logarithm: it is drawn as the scale's lower end, which the colour bar's arrow covers.
    shown = np.where(np.isnan(relative), np.nan, np.maximum(relative, 1e-12))
    image = axes.imshow(shown, aspect="auto", interpolation="nearest", cmap=COLOURS, origin="upper",
                        norm=LogNorm(1 / limit, limit))
    step = max(1, len(blocks) // 8)
    axes.set_yticks(range(0, len(blocks), step), [str(block) for block in blocks[::step]], fontsize=8)
    axes.set_ylabel("decoder block", fontsize=8)
    axes.tick_params(axis="x", bottom=False, labelbottom=False)
    return image


def _colour_bar(figure: Figure, image: AxesImage, heats: Sequence[Axes], limit: float) -> None:
    octaves = round(math.log2(limit))
    ticks = [2.0**octave for octave in range(-octaves, octaves + 1)]
    bar = figure.colorbar(image, ax=list(heats), extend="both", pad=0.015, aspect=30, ticks=ticks)
    bar.ax.set_yticklabels([f"{tick:g}" if tick >= 1 else f"1/{1 / tick:g}" for tick in ticks], fontsize=8)
    bar.ax.minorticks_off()
    bar.set_label("weight relative to uniform", fontsize=8)


def _kind_band(axes: Axes, kinds: np.ndarray) -> None:
    """A strip of one coloured cell a token, and the legend of its colours below."""
    import numpy as np
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.patches import Patch

    codes = {name: code for code, name in TOKEN_KINDS.items()}
    palette = ListedColormap([KIND_COLOURS[TOKEN_KINDS[code]] for code in sorted(TOKEN_KINDS)])
    norm = BoundaryNorm(np.arange(0.5, len(TOKEN_KINDS) + 1), palette.N)
    axes.imshow(kinds[None, :], aspect="auto", interpolation="nearest", cmap=palette, norm=norm)
    axes.set_yticks([0], ["kind"], fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel("token position", fontsize=8)
    present = [name for name in KIND_COLOURS if (kinds == codes[name]).any()]
    handles = [Patch(facecolor=KIND_COLOURS[name], label=f"{name} ({int((kinds == codes[name]).sum())})")
               for name in present]
    for handle in handles:
        handle.set(edgecolor="black", linewidth=0.4)
    axes.figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False,
                       title="token kind (number of tokens)", title_fontsize=8)
