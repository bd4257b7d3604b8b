"""Calibration sets by kind: which samples there are, whether they can be had, and the identity of their content.

Nothing here decodes an image or needs a model, so that all of it can be asked before anything is loaded.
"""

from __future__ import annotations

from qig.config.nested import inner_sets
from qig.config.schema import Calibration, MixtureCalibration
from qig.data.samples import Corpus
from qig.data.sets.base import CalibrationSet
from qig.data.sets.combined import FewShot, Interleaved, Mixture
from qig.data.sets.digitgrid import DigitGrid
from qig.data.sets.hf import HfSet
from qig.data.sets.pile import Pile
from qig.data.sets.python_docs import PythonDocs
from qig.data.sets.sharegpt import ShareGpt
from qig.errors import ConfigError, choices

SETS: dict[str, type[CalibrationSet]] = {
    "digitgrid": DigitGrid,
    "sharegpt": ShareGpt,
    "hf": HfSet,
    "pile": Pile,
    "python_docs": PythonDocs,
    "mixture": Mixture,
    "few_shot": FewShot,
    "interleaved": Interleaved,
}


def read(config: Calibration) -> Corpus:
    """The samples that the configuration names, images not yet decoded, and those that cannot be used.

    Raises:
        ConfigError: unknown kind of set.
        DataError: files, folders or columns are absent, or the set has fewer samples than asked for.
    """
    return _set(config).read()


def check_available(config: Calibration) -> None:
    """Refuse, before anything is loaded, a set whose files, folders or columns are not there.

    Raises:
        ConfigError: unknown kind of set.
        DataError: what is missing, what was expected, and the choices.
    """
    _set(config).check_available()


def content_hash(config: Calibration) -> str:
    """SHA-256 over the ids, texts and image bytes of the chosen samples, wherever they are stored.

    Raises:
        DataError: as ``read``.
    """
    return _set(config).content_hash()


def _set(config: Calibration, place: str = "calibration") -> CalibrationSet:
    if config.kind not in SETS:
        raise ConfigError(choices(config.kind, SETS, "calibration set"))
    within = f"{place}.parts" if isinstance(config, MixtureCalibration) else place
    inner = {name: _set(part, f"{within}.{name}") for name, part in inner_sets(config).items()}
    return SETS[config.kind](config, inner, place)
