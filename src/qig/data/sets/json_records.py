"""Records of a JSON or JSONL file."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from qig.data.sets.base import local
from qig.errors import DataError

SUFFIXES = (".json", ".jsonl")


def records_of(path: str, key: str) -> list[Any]:
    """What the list of a JSON file, or the lines of a JSONL file hold. ``key``: of the configuration, with the path.

    Raises:
        DataError: the file is absent, of another kind, no JSON, or no list.
    """
    file = local(path)
    if file.suffix not in SUFFIXES:
        raise DataError(f"{key}={path!r}: expected a file that ends in {' or '.join(SUFFIXES)}")
    try:
        status = file.stat()
        return _parsed(file, status.st_size, status.st_mtime_ns)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{key}={path!r} cannot be read: {type(error).__name__}: {error}") from error


@lru_cache(maxsize=2)
def _parsed(file: Path, size: int, modified: int) -> list[Any]:
    """The records of a file that is as it was when it had this size and time; some files take seconds to parse."""
    with file.open(encoding="utf-8") as stream:
        if file.suffix == ".jsonl":
            return [_line(number, line) for number, line in enumerate(stream, 1) if line.strip()]
        records = json.load(stream)
    if not isinstance(records, list):
        raise ValueError(f"expected a list of records, got {type(records).__name__}")
    return records


def _line(number: int, text: str) -> Any:
    try:
        return json.loads(text.rstrip())
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number}, column {error.colno}: {error.msg}") from error
