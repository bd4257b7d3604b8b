"""One look for all figures: sizes of a two-column page, a palette for colour-blind readers and for grey prints."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMN, PAGE = 3.3, 6.9
"""Widths in inches. Figures are drawn at the size they are printed at, so that 7 points are 7 points."""
DPI = 220
SETTINGS = {
    "font.size": 7, "axes.titlesize": 7.5, "axes.labelsize": 7, "xtick.labelsize": 6.5, "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5, "legend.title_fontsize": 6.5, "figure.titlesize": 8, "legend.frameon": False,
    "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5,
    "ytick.major.size": 2.5, "xtick.minor.size": 1.5, "ytick.minor.size": 1.5, "lines.linewidth": 1.1,
    "lines.markersize": 3.5, "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left",
    "grid.linewidth": 0.4, "grid.color": "#DDDDDD", "axes.axisbelow": True, "hatch.linewidth": 0.5,
    "pdf.fonttype": 42, "figure.constrained_layout.use": True,
}  # fmt: skip

# Okabe and Ito's palette, in an order that also steps in lightness, so that a grey print keeps the kinds apart.
KIND_COLOURS = {"vision": "#0072B2", "prompt": "#E69F00", "answer": "#009E73", "special": "#E4E4E4"}
PALETTE = ("#D55E00", "#0072B2", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
METHOD_ORDER = ("qig", "mbq", "gptq", "awq", "smoothquant", "gptaq", "none", "rtn")
"""Which method has which place in the palette, in every figure."""
COLOURS = "cividis"
"""Steps evenly in lightness and looks the same to colour-blind readers, so it also survives a grey print."""
SITES = {"attn_in": "attention input", "attn_out": "o_proj input", "mlp_in": "MLP input", "mlp_out": "down_proj input"}


@contextmanager
def styled() -> Iterator[None]:
    """Within the context matplotlib draws in this style, whatever the user's own settings are."""
    import matplotlib.style

    with matplotlib.style.context(["default", SETTINGS]):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches, apart from pyplot and its windows; what packs its fonts keeps quiet."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    logging.getLogger("fontTools").setLevel(logging.WARNING)
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def series_styles(labels: Sequence[str], methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """label -> (colour, marker); a method's first label has its own colour, further ones what is left."""
    styles: dict[str, tuple[str, str]] = {}
    waiting = []
    used: set[int] = set()
    for label, method in dict(zip(labels, methods, strict=True)).items():
        place = METHOD_ORDER.index(method) if method in METHOD_ORDER else None
        if place is None or place in used:
            waiting.append(label)
            continue
        used.add(place)
        styles[label] = PALETTE[place], MARKERS[place]
    free = [place for place in range(len(PALETTE)) if place not in used] or list(range(len(PALETTE)))
    for index, label in enumerate(waiting):
        place = free[index % len(free)]
        styles[label] = PALETTE[place], MARKERS[(place + index // len(free)) % len(MARKERS)]
    return styles
