"""What an interrupted evaluation goes on from: results of finished batches, each on the disk before the next begins.

``journal/RANK.jsonl``, one line a batch: a checksum, a space, and JSON with the batch's key, result and seconds. A line
that a killed process left torn, or in which a bit has flipped, does not count, and its batch is done again. The batches
are those of an undisturbed run, padding included, so that every bit is.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

Batch = TypeVar("Batch")
FOLDER = "journal"


class Journal:
    """The journal in an evaluation's folder; ``None``: nothing is kept. ``rank``: number of this process.

    ``identity``: of what is evaluated and how; batches of another one in the same folder do not count.
    """

    def __init__(self, folder: Path | None, rank: int = 0, identity: str = "") -> None:
        self._identity = identity
        self._file = None if folder is None else folder / FOLDER / f"{rank}.jsonl"
        self._known: dict[Hashable, Any] = {}
        if self._file is not None:
            _drop_torn_line(self._file)
            for file in self._file.parent.glob("*.jsonl"):  # also of processes that were more or fewer then
                self._known |= {entry["key"]: entry["result"] for entry in _entries(file)}

    def kept(
        self, phase: str, name: Callable[[Batch], Sequence], work: Callable[[int, Batch], list]
    ) -> Callable[[tuple[int, Batch]], list]:
        """``work`` on numbered batches that does none twice. ``name``: what a batch is made of, as JSON can hold it."""

        def once(numbered: tuple[int, Batch]) -> list:
            number, batch = numbered
            if self._file is None:
                return work(number, batch)
            key = json.dumps([self._identity, phase, number, name(batch)])
            if key not in self._known:
                start = time.perf_counter()
                self._append(key, work(number, batch), start)
            return self._known[key]

        return once

    def _append(self, key: str, result: list, start: float) -> None:
        self._known[key] = result
        entry = {"key": key, "result": result, "seconds": time.perf_counter() - start}
        # Opened anew each time: where another process has taken over the folder there is nothing to append to.
        self._file.parent.mkdir(exist_ok=True)
        with self._file.open("ab") as stream:
            stream.write(_line(entry))
            stream.flush()
            os.fsync(stream.fileno())


def spent(folder: Path) -> float:
    """Seconds that earlier attempts spent on batches that are finished; of several processes, the longest."""
    return max((sum(entry["seconds"] for entry in _entries(file)) for file in folder.glob(f"{FOLDER}/*.jsonl")),
               default=0.0)  # fmt: skip


def discard(folder: Path) -> None:
    """The evaluation is finished: its results are elsewhere."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def _line(entry: dict[str, Any]) -> bytes:
    text = json.dumps(entry).encode()
    return _checksum(text) + b" " + text + b"\n"


def _entries(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_bytes().split(b"\n"):
        checksum, _, text = line.partition(b" ")
        if text and checksum == _checksum(text):
            yield json.loads(text)


def _drop_torn_line(file: Path) -> None:
    """Else the next line would be glued to it."""
    if file.exists():
        content = file.read_bytes()
        os.truncate(file, content.rfind(b"\n") + 1)


def _checksum(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:16].encode()
