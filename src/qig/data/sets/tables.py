"""Tables of samples through ``datasets``: a local file or directory, or a data set of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qig.data.sets.base import local
from qig.errors import DataError, choices

if TYPE_CHECKING:
    from datasets import Dataset

BUILDERS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv", ".arrow": "arrow", ".txt": "text"}


def open_table(path: str, name: str | None, split: str, columns: Sequence[str]) -> Dataset:
    """The data set, memory-mapped; nothing of it is decoded.

    Raises:
        DataError: it is absent or unreadable, has no such split, or lacks one of ``columns``.
    """
    table = _split_of(_load(path, name, split), path, split)
    for column in columns:
        if column not in table.column_names:
            raise DataError(f"{path}: {choices(column, table.column_names, 'column')}")
    return table


def rows_of(table: Dataset, positions: Sequence[int]) -> list[dict[str, Any]]:
    """Rows as they are stored: images are dicts of ``bytes`` and ``path``."""
    return table.with_format("arrow")[list(positions)].to_pylist()


def _load(path: str, name: str | None, split: str):
    import datasets
    import pyarrow

    place = local(path)
    if not place.exists():
        _refuse_unless_hub_id(path)
    elif place.is_file() and place.suffix not in BUILDERS:
        raise DataError(f"{path}: {choices(place.suffix, BUILDERS, 'kind of file')}")
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    try:
        if place.is_file():
            return datasets.load_dataset(BUILDERS[place.suffix], data_files=str(place))
        if (place / "state.json").is_file() or (place / "dataset_dict.json").is_file():
            return datasets.load_from_disk(str(place))
        return datasets.load_dataset(str(place) if place.is_dir() else path, name, split=split)
    except (OSError, ValueError, TypeError, LookupError, pyarrow.ArrowException, *_failures()) as error:
        reason = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
        hint = "" if place.exists() else "; without a network it must already be in the Hugging Face cache (HF_HOME)"
        raise DataError(f"data set {path!r} cannot be loaded: {reason[0]}{hint}") from error


def _failures() -> tuple[type[Exception], ...]:
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    return DatasetsError, HfHubHTTPError


def _refuse_unless_hub_id(path: str) -> None:
    if path.startswith((".", "~", "/")) or path.count("/") != 1 or Path(path).suffix in BUILDERS:
        raise DataError(f"{path!r} does not exist; expected a file, a directory, or a hub id of the form owner/name")


def _split_of(loaded, path: str, split: str) -> Dataset:
    if not isinstance(loaded, dict):
        return loaded
    if len(loaded) == 1 and split == "train":
        return next(iter(loaded.values()))
    if split not in loaded:
        raise DataError(f"{path}: {choices(split, loaded, 'split')}")
    return loaded[split]
