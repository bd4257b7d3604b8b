"""A run's configuration read back from its record: typed again, and refused if other code wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qig.config.schema import GROUPS, Config
from qig.errors import StoreError, choices


def recorded_config(record: Mapping[str, Any]) -> Config:
    """The configuration that a run record holds.

    Raises:
        StoreError: it has other keys or values than this version's schema; names them.
    """
    with _of_this_version(record):
        values = record.get("config")
        groups = {name: _group(name, values[name]) for name in GROUPS}
        return typed(Config, {**values, **groups})


def recorded_calibration(record: Mapping[str, Any]) -> Any:
    """The calibration set alone, whatever the other groups hold.

    Raises:
        StoreError: as :func:`recorded_config`.
    """
    with _of_this_version(record):
        return OmegaConf.to_object(_calibration(record["config"]["calibration"]))


@contextmanager
def _of_this_version(record: Mapping[str, Any]) -> Iterator[None]:
    try:
        yield
    except (OmegaConfBaseException, KeyError, TypeError, AttributeError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise StoreError(
            f"the configuration of run {record.get('id')} was recorded by another version of this package, "
            f"whose code can run it: {reason}{_written_by(record)}"
        ) from error


def _group(name: str, values: Mapping[str, Any]) -> Any:
    if name == "calibration":
        return _calibration(values)
    return OmegaConf.structured(typed(_schema(name, values), values))


def _schema(group: str, values: Mapping[str, Any]) -> type:
    known = GROUPS[group]
    if set(known) == {group}:
        return known[group]
    if values["kind"] not in known:
        raise TypeError(choices(values["kind"], known, f"kind of {group}"))
    return known[values["kind"]]


def _calibration(values: Mapping[str, Any]) -> Any:
    """A set and those inside it, each by its own schema."""
    schema = _schema("calibration", values)
    inner = dict(values)
    for field in fields(schema):
        if field.type == "Calibration":
            inner[field.name] = _calibration(values[field.name])
        elif field.type == "dict[str, Calibration]":
            inner[field.name] = {name: _calibration(part) for name, part in values[field.name].items()}
    return OmegaConf.structured(typed(schema, inner))


def typed(schema: type, values: Mapping[str, Any]) -> Any:
    """Plain values as an object of a schema's dataclass.

    Raises:
        OmegaConfBaseException: other keys or kinds of values than the schema's.
    """
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), values))


def _written_by(record: Mapping[str, Any]) -> str:
    commit = ((record.get("environment") or {}).get("git") or {}).get("commit")
    return f" (it ran from commit {commit})" if commit else ""
