"""``qig-runs prune``: remove what no run of the store refers to.

Stages without a run, what interrupted and damaged attempts left, and locks whose owners are dead. It says what would go
and how large it is; --yes removes it. What some process is working on stays.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from qig.errors import StoreError
from qig.runs.lookup import KINDS, all_runs, artefacts, check_store, stages
from qig.store.artefacts import DAMAGED, PARTIAL
from qig.store.locks import SILENCE, Holder, Lock, holder


@dataclass(frozen=True)
class Waste:
    """A folder that nobody needs, and why.

    ``lock``: which must be held to remove it; a lock itself has none, but the ``records`` of its dead owners.
    ``asked``: when the runs that might refer to it were read; None for what no run can refer to.
    """

    folder: Path
    reason: str
    lock: str | None = None
    records: tuple[Path, ...] = ()
    asked: int | None = None

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file() and not file.is_symlink())

    def remove(self, store: Path) -> bool:
        """Remove it while nobody can begin with it; False if that has changed: it stays, or is gone already.

        A lock goes only if nobody has taken it meanwhile.
        """
        if self.lock is None:
            with contextlib.suppress(OSError):
                for record in self.records:
                    record.unlink()
                self.folder.rmdir()
            return not self.folder.exists()
        with Lock(store / "locks", self.lock):
            if self.asked is not None and (_live(store) - {self.lock} or _changed(store) != self.asked):
                return False
            aside = self.folder.with_name(f"{DAMAGED}{self.folder.name}")  # readers find all of it, or nothing
            try:
                self.folder.rename(aside)
            except FileNotFoundError:
                return False
            shutil.rmtree(aside)
        return True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="remove it (default: only say what would be removed)")
    kept = "keep what interrupted attempts left: the same commands would go on from there"
    parser.add_argument("--keep-partial", action="store_true", help=kept)


def run(options: argparse.Namespace) -> int:
    found = [one for one in waste(options.store) if not (options.keep_partial and one.folder.name.startswith(PARTIAL))]
    total = count = 0
    for one in found:
        size = one.size
        kept = options.yes and not one.remove(options.store)
        total, count = (total, count) if kept else (total + size, count + 1)
        left = ": somebody has begun to work here, it stays" if kept else ""
        print(f"{size / 2**20:10.1f} MiB  {one.folder.relative_to(options.store)}  ({one.reason}){left}", flush=True)
    done = "removed" if options.yes else "would be removed; --yes removes them"
    print(f"{count} folders, {total / 2**20:.1f} MiB {done}")
    return 0


def waste(store: Path) -> list[Waste]:
    """All folders of a store that nothing refers to and nobody is working on.

    Raises:
        StoreError: no store there, or a run record that cannot be read: what it refers to is not known.
    """
    check_store(store)
    live, asked = _live(store), _changed(store)  # first: who has ended since then has left a record that is read now
    runs, problems = all_runs(store)
    if problems:
        raise StoreError(
            f"{len(problems)} run records cannot be read, so that what they refer to is not known; remove their "
            f"folders, or run their commands again: {'; '.join(problems[:3])}"
        )
    needed = {(kind, key) for one in runs for kind, key in stages(one).items()}
    needed |= {("evaluation", part) for one in runs for part in one.record["stages"].get("parts", ())}
    found = []
    for kind in KINDS:
        if kind != "runs" and not live:  # while a run is at work, what its record will refer to is not known
            found += [Waste(folder, "no run refers to it", f"{kind}-{folder.name}", asked=asked)
                      for folder in artefacts(store, kind) if (kind, folder.name) not in needed]  # fmt: skip
        for prefix, reason in ((PARTIAL, "interrupted"), (DAMAGED, "damaged")):
            for folder in sorted((store / kind).glob(f"{prefix}*")):
                lock = f"{kind}-{folder.name.removeprefix(prefix).partition('.')[0]}"
                found += [] if lock in live else [Waste(folder, reason, lock)]
    dead = [lock for lock in _locks(store) if lock.name not in live]
    return found + [Waste(lock, "nobody holds it", records=tuple(lock.glob("*.json"))) for lock in dead]


def _live(store: Path) -> set[str]:
    """The names of the locks that somebody holds."""
    return {lock.name for lock in _locks(store) if (held := holder(lock)) and not _dead(held)}


def _changed(store: Path) -> int:
    """When a run last came or went."""
    return (store / "runs").stat().st_mtime_ns if (store / "runs").is_dir() else 0


def _dead(held: Holder) -> bool:
    """Its process runs no more, or, on another machine, has long given no sign of life."""
    runs = held.runs
    return runs is False or (runs is None and time.time() - held.pulse / 1e9 > 60 * SILENCE)


def _locks(store: Path) -> list[Path]:
    folder = store / "locks"
    return sorted(lock for lock in folder.iterdir() if lock.is_dir()) if folder.is_dir() else []
