"""Locks between processes and machines, made of nothing but rename and unlink, which NFS does atomically, too.

A lock is a folder with one file, the owner's record, named after the claim. It is free if it is absent or empty, since
a prepared folder can be renamed onto an empty one and onto no other. Giving it up, or taking it from the dead, is to
unlink that one file: a waiter can only remove the owner that it has judged, never one that came meanwhile, and whose
rename comes first afterwards has the lock.

On this machine it is known whether an owner runs: a dead one is replaced at once, one that is only stopped, or too busy
for its heartbeat, never. One on another machine is dead when its heartbeat, the record's time of change, has not moved
for ``SILENCE`` seconds of the waiter's own steady clock; what any clock says does not matter.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import secrets
import shutil
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from qig.store.files import sync, write_json
from qig.store.owner import Owner

BEAT = 5.0
SILENCE = 60.0
PAUSE = (0.05, 1.0)
"""Seconds between heartbeats, until silence means death, and between two looks at a lock (growing)."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """Whose a lock is: the record's file, its owner (``None`` if it cannot be read), and the last heartbeat."""

    file: Path
    owner: Owner | None
    pulse: int

    @property
    def runs(self) -> bool | None:
        """Whether the owner runs; ``None`` where that cannot be known."""
        return None if self.owner is None else self.owner.runs

    def __str__(self) -> str:
        return str(self.owner or "an unknown process")


def holder(lock: Path) -> Holder | None:
    """Who holds the lock; ``None`` if nobody does."""
    try:
        files = sorted(lock.glob("*.json"))
    except FileNotFoundError:  # given up while it was looked into
        return None
    for file in files:
        try:
            with file.open() as stream:  # opening makes NFS ask its server
                pulse = os.fstat(stream.fileno()).st_mtime_ns
                text = stream.read()
        except FileNotFoundError:
            continue
        try:
            return Holder(file, Owner(**json.loads(text)), pulse)
        except (ValueError, TypeError):
            return Holder(file, None, pulse)
    return None


def give_up(lock: Path) -> None:
    """Free a lock that nobody needs any more of an owner that was killed with it; let be where that cannot be known."""
    with contextlib.suppress(OSError):  # another process was faster, or the store is not to be written
        held = holder(lock)
        if held is not None and held.runs is False:
            held.file.unlink()
            lock.rmdir()


class Lock:
    """The lock ``folder/name``, held within a ``with``.

    Attributes:
        claim: names this claim; no other will ever have it.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / name
        self.claim = secrets.token_hex(8)
        self._prepared = folder / f".{name}.{self.claim}"
        self._record = self.path / f"{self.claim}.json"
        self._stop = threading.Event()

    def __enter__(self) -> Lock:
        self._sweep()
        try:
            self._prepared.mkdir(parents=True)
            write_json(self._prepared / self._record.name, asdict(Owner.me()))
            sync(self._prepared)
            self._wait()
        except BaseException:
            shutil.rmtree(self._prepared, ignore_errors=True)
            raise
        self._heart = threading.Thread(target=self._beat, name=f"heartbeat of {self.path.name}", daemon=True)
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._heart.join()
        with contextlib.suppress(OSError):  # taken over, or the disk is gone: then this process's death gives it up
            self._record.unlink()
            self.path.rmdir()

    @property
    def held(self) -> bool:
        """Whether it is still this process's: after a long sleep it may have been taken over."""
        return self._record.exists()

    def _wait(self) -> None:
        seen, since, pause, told = None, time.monotonic(), PAUSE[0], False
        while not self._take():
            other, now = holder(self.path), time.monotonic()
            if other is None:  # given up this moment
                time.sleep(PAUSE[0])
                continue
            if (other.file, other.pulse) != seen:
                seen, since = (other.file, other.pulse), now
            runs = other.runs
            if runs is False or (runs is None and now - since > SILENCE):
                log.warning("%s: taken over from %s, which %s", self.path.name, other,
                            "gives no sign of life" if runs is None else "runs no more")  # fmt: skip
                with contextlib.suppress(FileNotFoundError):  # another waiter was faster
                    other.file.unlink()
                continue
            if not told:
                log.info("%s: %s is at it; waiting", self.path.name, other)
                told = True
            time.sleep(pause)
            pause = min(1.5 * pause, PAUSE[1])

    def _take(self) -> bool:
        try:
            self._prepared.rename(self.path)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        return True

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            try:
                os.utime(self._record)
            except FileNotFoundError:
                log.warning("%s: another process has taken over from this one", self.path.name)
                return
            except OSError:  # a server that is away for a while
                continue

    def _sweep(self) -> None:
        """What was prepared by processes that were killed before they had the lock."""
        for left in self.path.parent.glob(f".{self.path.name}.*"):
            other = holder(left)
            if other is not None and other.runs is False:
                shutil.rmtree(left, ignore_errors=True)
