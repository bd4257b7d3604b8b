"""From what Hydra composes to the typed configuration of a run."""

from __future__ import annotations

import copy
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from qig.config import conf_dir, own, register
from qig.config.naming import method_name
from qig.config.schema import Config
from qig.config.told import reworded
from qig.errors import ConfigError, choices

COMPOSES = {"compose_config", "load_configuration", "load_sweep_config"}
"""Methods of Hydra's within which a configuration is composed, and nothing else is done."""
APPEND = re.compile(r"^To append to your config use \+(?!hydra).*\n?", re.MULTILINE)
"""Hydra's advice for a key that the schema lacks, which :func:`typed` would refuse."""
ABSENT = re.compile(r"(?:Missing mandatory value|missing mandatory value: \S+\s+full_key): (\S+)")


@contextmanager
def composing() -> Iterator[None]:
    """Hydra's place to compose from the package's configuration.

    Raises:
        ConfigError: what Hydra refuses within.
    """
    register()
    try:
        with initialize_config_dir(config_dir=str(conf_dir())):
            yield
    except Exception as error:
        told = trouble(error)
        if told is None:
            raise
        raise ConfigError(told) from error


def trouble(error: Exception) -> str | None:
    """What is wrong with the words or files that Hydra composes; ``None`` for an error that arose elsewhere.

    While Hydra composes, it lets through what YAML files and odd values provoke, whatever that is.
    """
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        cause = f"\n{error.__cause__}" if isinstance(error.__cause__, OmegaConfBaseException) else ""
        told = f"{error}{cause}"
        return reworded(error, told) or APPEND.sub("", told)
    if any(frame.f_code.co_name in COMPOSES for frame, _ in traceback.walk_tb(error.__traceback__)):
        plain = f"the configuration cannot be composed: {type(error).__name__}: {error}"
        return reworded(error, plain) or plain
    return None


def composed(words: Sequence[str]) -> Config:
    """The configuration of these overrides, neither resolved nor checked.

    Raises:
        ConfigError: a word that Hydra or the schema refuses.
    """
    with composing():
        return typed_job(compose("config", overrides=list(words), return_hydra_config=True))


class Composer:
    """Composes many jobs that differ in values more than in the files they choose.

    Hydra takes a third of a second for a job, nearly all of it for the files; what the words choose is composed once,
    and the values are set by Hydra's own function on a copy.

    Args:
        compose: makes of words what Hydra makes of them, with its own part under ``hydra``.
    """

    def __init__(self, compose: Callable[[list[str]], DictConfig]) -> None:
        self._compose = compose
        self._chosen: dict[tuple[str, ...], DictConfig] = {}
        self._groups = {folder.name for folder in conf_dir().iterdir() if folder.is_dir()}

    def __call__(self, words: Sequence[str]) -> DictConfig:
        """What Hydra composes of the words, its interpolations (of the environment, too) not yet resolved."""
        values = OverridesParser.create().parse_overrides([word for word in words if not self._chooses(word)])
        if any(value.is_sweep_override() for value in values):
            return self._compose(list(words))  # which says why that is no single job
        chosen = tuple(word for word in words if self._chooses(word))
        if chosen not in self._chosen:
            self._chosen[chosen] = self._compose(list(chosen))
        composed = copy.deepcopy(self._chosen[chosen])
        ConfigLoaderImpl._apply_overrides_to_config(values, composed)
        given = composed.hydra.overrides
        for value in values:
            (given.hydra if value.is_hydra_override() else given.task).append(value.input_line)
        return composed

    def _chooses(self, word: str) -> bool:
        """Whether the word names a file of a group, or where files are, instead of a value."""
        key = word.lstrip("+~").partition("=")[0].partition("@")[0]
        return "/" in key or key in self._groups or key == own.SEARCH


def typed(composed: DictConfig, runtime: DictConfig) -> Config:
    """The configuration object, named after its method, which is set. ``runtime``: what Hydra reports of composing it.

    Raises:
        ConfigError: a value is missing, or of another type than the schema's; or a key is not the schema's.
    """
    _refuse_unknown(composed)
    with flag_override(composed, "readonly", False):
        composed.method = method_name(runtime)
    try:
        return OmegaConf.to_object(composed)
    except OmegaConfBaseException as error:
        missing = ABSENT.search(str(error))
        raise ConfigError(
            f"{missing[1]} has no default: give it as {missing[1]}=VALUE" if missing else str(error)
        ) from None


def _refuse_unknown(node: DictConfig, path: str = "") -> None:
    """Raises ConfigError for a key that ``+`` or ``++`` has put beside the schema's: nothing would ever read it."""
    kind = OmegaConf.get_type(node)
    known = [f"{path}{one.name}" for one in fields(kind)] if is_dataclass(kind) else None
    for key in node:
        name = f"{path}{key}"
        if known is not None and name not in known:
            raise ConfigError(choices(name, known, "configuration key"))
        written = not (OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key))
        if written and isinstance(child := node[key], DictConfig):
            _refuse_unknown(child, f"{name}.")


def typed_job(composed: DictConfig) -> Config:
    """The same of a job as ``compose(..., return_hydra_config=True)`` or a launcher has it, with Hydra's own part.

    Raises:
        ConfigError: as :func:`typed`.
    """
    return typed(without_hydra(composed), composed.hydra.runtime)


def without_hydra(composed: DictConfig) -> DictConfig:
    """A copy that lacks Hydra's own part."""
    own = composed.copy()
    with flag_override(own, ["struct", "readonly"], False):
        del own["hydra"]
    return own
