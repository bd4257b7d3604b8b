"""Equalization: a scale per input channel. A method is one file here, one line in ``EQUALIZERS`` and one YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qig.config.schema import Equalization
from qig.named import named

if TYPE_CHECKING:
    from qig.equalization.equalizer import Equalizer

EQUALIZERS = {
    "smoothquant": "qig.equalization.smoothquant:SmoothQuant",
    "grid": "qig.equalization.grid_search:GridSearch",
    "learned": "qig.equalization.learned:LearnedScales",
}


def equalizer_of(config: Equalization) -> Equalizer | None:
    """The method that the configuration names; ``None`` for no equalization."""
    if config.kind == "none":
        return None
    return named(config.kind, EQUALIZERS, "equalization")(config)
