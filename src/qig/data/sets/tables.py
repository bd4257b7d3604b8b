"""Tables of samples: a local file or directory, or a data set of the Hugging Face hub, through ``datasets``.

JSON files are read by Python's own parser, since pyarrow's ends the process on some malformed ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qig.data.sets.base import local
from qig.data.sets.hub import without_waiting
from qig.data.sets.json_records import SUFFIXES, records_of
from qig.errors import DataError, choices

BUILDERS = {".parquet": "parquet", ".csv": "csv", ".arrow": "arrow", ".txt": "text"}


@dataclass(frozen=True)
class Table:
    """Rows as they are stored; nothing of them is decoded: images are dicts of ``bytes`` and ``path``."""

    columns: tuple[str, ...]
    length: int
    rows: Callable[[Sequence[int]], list[dict[str, Any]]]


def open_table(path: str, name: str | None, split: str, columns: Sequence[str], key: str) -> Table:
    """The table at ``path``, which the configuration has under ``key``.

    Raises:
        DataError: it is absent or unreadable, has no such split, or lacks one of ``columns``.
    """
    place = local(path)
    if not place.exists():
        _refuse_unless_hub_id(path)
    elif place.is_file() and place.suffix not in (*BUILDERS, *SUFFIXES):
        raise DataError(f"{path}: {choices(place.suffix, (*BUILDERS, *SUFFIXES), 'kind of file')}")
    is_json = place.is_file() and place.suffix in SUFFIXES
    table = _of_records(records_of(path, key)) if is_json else _of_dataset(path, place, name, split)
    for column in columns:
        if column not in table.columns:
            raise DataError(f"{path}: {choices(column, table.columns, 'column')}")
    return table


def _of_records(records: list[Any]) -> Table:
    """Records that are no objects, and fields that are not there, are empty cells."""
    objects = [record if isinstance(record, dict) else {} for record in records]
    columns = tuple(dict.fromkeys(key for record in objects for key in record))
    return Table(
        columns, len(objects), lambda positions: [dict.fromkeys(columns) | objects[position] for position in positions]
    )


def _of_dataset(path: str, place: Path, name: str | None, split: str) -> Table:
    import datasets
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError
    from pyarrow import ArrowException

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    try:
        if place.is_file():
            loaded = datasets.load_dataset(BUILDERS[place.suffix], data_files=str(place), split="train")
        elif (place / "state.json").is_file() or (place / "dataset_dict.json").is_file():
            loaded = datasets.load_from_disk(str(place))
        elif place.is_dir():
            loaded = datasets.load_dataset(str(place), name)
        else:
            with without_waiting(path):
                loaded = datasets.load_dataset(path, name)
    except (OSError, ValueError, TypeError, LookupError, ArrowException, DatasetsError, HfHubHTTPError) as error:
        reason = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
        hint = "" if place.exists() else "; without a network it must already be in the Hugging Face cache (HF_HOME)"
        raise DataError(f"data set {path!r} cannot be loaded: {reason[0]}{hint}") from error
    chosen = _split_of(loaded, path, split, place.is_dir())
    stored = chosen.with_format("arrow")
    return Table(tuple(chosen.column_names), len(chosen), lambda positions: stored[list(positions)].to_pylist())


def _refuse_unless_hub_id(path: str) -> None:
    if path.startswith((".", "~", "/")) or path.count("/") != 1 or Path(path).suffix in (*BUILDERS, *SUFFIXES):
        raise DataError(f"{path!r} does not exist; expected a file, a directory, or a hub id of the form owner/name")


def _split_of(loaded, path: str, split: str, is_directory: bool):
    """A single table stands for its only split, whatever that is called; a file has none, nor may a directory."""
    if not isinstance(loaded, dict):
        return loaded
    if len(loaded) == 1 and (split == "train" or (is_directory and "train" in loaded)):
        return next(iter(loaded.values()))
    if split not in loaded:
        raise DataError(f"{path}: {choices(split, loaded, 'split')}")
    return loaded[split]
