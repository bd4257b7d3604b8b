"""A folder of the user's own configuration files: ``--config-dir``, as ``qig`` has it of Hydra, for other commands."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser

from qig.errors import ConfigError

SEARCH = "hydra.searchpath"
_SCHEME = "file://"


def add_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config-dir", type=Path, metavar="DIR",
                        help="as for qig: a folder with configuration files of your own (DIR/experiment/mine.yaml)")


def words(folder: Path | None) -> list[str]:
    """The override by which Hydra looks into the folder, too; none for ``None``.

    Raises:
        ConfigError: no such folder.
    """
    if folder is None:
        return []
    if not folder.is_dir():
        raise ConfigError(f"--config-dir {folder}: no such folder")
    place = f"{_SCHEME}{folder.resolve()}".replace("'", r"\'")
    return [f"{SEARCH}=['{place}']"]


def folders(overrides: Sequence[str]) -> list[Path]:
    """The folders that overrides such as those of :func:`words` add to the package's."""
    added = [word for word in overrides if word.partition("=")[0] == SEARCH]
    return [Path(str(place).removeprefix(_SCHEME))
            for override in OverridesParser.create().parse_overrides(added) for place in override.value()]
