"""The jobs of a sweep with arms: for each point of the parameters' product, each arm.

``hydra.sweeper.params`` spans a product, as in Hydra's own sweeper. ``hydra.sweeper.arms`` maps a name to what sets
that arm apart, words as on the command line; words of an arm may sweep, too. What is given on the command line
replaces the parameter of the same key; an arm stays what it is.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from qig.errors import ConfigError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """``overrides`` of one run; ``point``: swept keys to the value, as it is written, that the run stands for.

    An arm that sets a parameter itself (16 bit: ``quant=fp16``) still stands for the parameter's point.
    """

    arm: str | None
    overrides: tuple[str, ...]
    point: tuple[tuple[str, str], ...]


def jobs(params: Mapping[str, Any], arms: Mapping[str, Any], arguments: Sequence[str]) -> list[Job]:
    """All jobs, in the order of the parameters' product, then of the arms.

    Raises:
        ConfigError: an arm is no text, or a sweep is none that can be listed (such as ``interval``) or is empty.
    """
    spanned = parsed([f"{key}={value}" for key, value in params.items()]) | parsed(arguments)
    alternatives = {name: parsed(_words(name, text)) for name, text in arms.items()} or {None: {}}
    found = []
    for point in _points(spanned):
        for name, own in alternatives.items():
            for inner in _points(own):
                overrides = tuple(f"{key}={value}" for key, value in {**point, **inner}.items())
                where = {key: value for key, value in point.items() if key in params or len(spanned[key]) > 1}
                where |= {key: value for key, value in inner.items() if len(own[key]) > 1}
                found.append(Job(name, overrides, tuple(where.items())))
    return found


def warn_of_replaced(arms: Mapping[str, Any], arguments: Sequence[str]) -> None:
    """Say which words of the command line change nothing, since every arm sets the same key."""
    given, set_by = parsed(arguments), [parsed(_words(name, text)) for name, text in arms.items()]
    for key, values in given.items():
        if set_by and all(key in own for own in set_by):
            log.warning("%s=%s changes nothing: every arm sets %s. Arms are chosen with 'hydra.sweeper.only=[%s]'",
                        key, ",".join(values), key, next(iter(arms)))  # fmt: skip


def _words(name: str, text: Any) -> list[str]:
    if not isinstance(text, str):
        raise ConfigError(f"arm {name!r} is {text!r}; expected words as on the command line, such as 'method=qig'")
    return shlex.split(text)


def _points(choices: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]


def is_telling(word: str) -> bool:
    """Whether an override can change a result, and not only where it is kept and how the jobs are run."""
    return not word.lstrip("+~").startswith(("tracking", "hydra", "store"))


def is_of_sweep(word: str) -> bool:
    """Whether it is one of Hydra's own that say what is swept and how it is tabulated."""
    return word.lstrip("+~").startswith("hydra.sweeper.")


def parsed(words: Sequence[str]) -> dict[str, list[str]]:
    """Key to the values it takes, as written; a later word replaces an earlier one of the same key."""
    found: dict[str, list[str]] = {}
    for override in OverridesParser.create().parse_overrides(list(words)):
        key = override.get_key_element()
        if not override.is_sweep_override():
            found[key] = [override.get_value_element_as_str()]
        elif override.is_discrete_sweep():
            found[key] = list(override.sweep_string_iterator())
            if not found[key]:
                raise ConfigError(f"{override.input_line}: expected at least one value")
        else:
            raise ConfigError(f"{override.input_line}: expected single values, such as {key}=a,b")
    return found
