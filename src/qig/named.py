"""Methods by name: tables of what a configuration may choose, of which only what is chosen is imported."""

from __future__ import annotations

from collections.abc import Mapping
from pkgutil import resolve_name

from qig.errors import ConfigError, choices


def named(kind: str, table: Mapping[str, str], what: str) -> type:
    """The class that a table has for a kind, as ``package.module:Class``.

    Raises:
        ConfigError: it has none; ``what`` says of what.
    """
    if kind not in table:
        raise ConfigError(choices(kind, table, what))
    return resolve_name(table[kind])
