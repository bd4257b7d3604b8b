"""Equalization: a scale per input channel. A method is one file here, one line in ``EQUALIZERS`` and one YAML."""

from __future__ import annotations

from qig.config.schema import Equalization
from qig.equalization.equalizer import Equalizer
from qig.equalization.grid_search import GridSearch
from qig.equalization.learned import LearnedScales
from qig.equalization.smoothquant import SmoothQuant
from qig.errors import ConfigError, choices

EQUALIZERS: dict[str, type[Equalizer]] = {
    "smoothquant": SmoothQuant,
    "grid": GridSearch,
    "learned": LearnedScales,
}


def equalizer(config: Equalization) -> Equalizer | None:
    """The method that the configuration names; ``None`` for no equalization."""
    if config.kind == "none":
        return None
    if config.kind not in EQUALIZERS:
        raise ConfigError(choices(config.kind, ["none", *EQUALIZERS], "equalization"))
    return EQUALIZERS[config.kind](config)
