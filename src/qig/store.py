"""Content-addressed artefacts on disk: each is a folder under ``KIND/KEY``, complete or not there.

Work happens in ``KIND/.partial-KEY`` under a lock between processes; a finished folder gets a manifest of checksums
and is renamed. A folder whose content does not match its manifest is set aside and made again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from qig.errors import StoreError

MANIFEST = "MANIFEST.json"
DISK_ERRORS = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EIO", "ENOTDIR", "EISDIR", "EEXIST", "ENAMETOOLONG")
    if hasattr(errno, name)
}
log = logging.getLogger(__name__)


class Store:
    """A folder of artefacts that many processes share.

    Raises:
        StoreError: the folder cannot be created or written.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().absolute()
        try:
            (self.root / "locks").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"the store {self.root} cannot be created: {error}") from error

    def path(self, kind: str, key: str) -> Path:
        return self.root / kind / key

    def find(self, kind: str, key: str) -> Path | None:
        """The finished artefact, its checksums verified; ``None`` if there is none. A damaged one is set aside."""
        folder = self.path(kind, key)
        if not folder.is_dir():
            return None
        damage = find_damage(folder)
        if damage is None:
            return folder
        aside = folder.with_name(f".damaged-{key}")
        try:
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
        except FileNotFoundError:  # another process was faster
            return None
        except OSError as error:
            raise StoreError(f"{kind} {key} is damaged ({damage}) and cannot be set aside: {error}") from error
        log.warning("%s %s is damaged (%s); set aside as %s and made again", kind, key, damage, aside.name)
        return None

    def make(self, kind: str, key: str, build: Callable[[Path], None], *, resumable: bool = False) -> tuple[Path, bool]:
        """The artefact, made by ``build(folder)`` if need be; and whether it was there already.

        ``build`` writes into an empty folder, or, if ``resumable``, into the one that an interrupted attempt left.
        If it raises, nothing is left that a later run would take for finished.

        Raises:
            StoreError: the disk is full or not writable.
        """
        found = self.find(kind, key)
        if found:
            return found, True
        with self._lock(kind, key):
            found = self.find(kind, key)  # another process may have made it meanwhile
            if found:
                return found, True
            partial = self.root / kind / f".partial-{key}"
            try:
                if not resumable:
                    shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True, exist_ok=True)
                build(partial)
                write_manifest(partial)
                partial.rename(self.path(kind, key))
            except OSError as error:
                if error.errno not in DISK_ERRORS:  # a build's own trouble, such as a network that is down
                    raise
                raise StoreError(f"{kind} {key} could not be written under {self.root}: {error}") from error
            finally:
                if not resumable:
                    shutil.rmtree(partial, ignore_errors=True)
        return self.path(kind, key), False

    @contextmanager
    def _lock(self, kind: str, key: str) -> Iterator[None]:
        lock = FileLock(self.root / "locks" / f"{kind}-{key}.lock")
        try:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                log.info("another process is making %s %s; waiting for it", kind, key)
                lock.acquire()
        except OSError as error:
            raise StoreError(f"{kind} {key} could not be written under {self.root}: {error}") from error
        try:
            yield
        finally:
            lock.release()


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


def _files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.rglob("*") if f.is_file() and f.name != MANIFEST)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_manifest(folder: Path) -> None:
    """Checksums of all files of a folder, written last: what makes it a finished one."""
    sums = {str(f.relative_to(folder)): _sha256(f) for f in _files(folder)}
    temporary = folder / (MANIFEST + ".tmp")
    with temporary.open("w") as stream:
        json.dump(sums, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.rename(folder / MANIFEST)


def find_damage(folder: Path) -> str | None:
    """What is wrong with a finished folder, by its manifest of checksums; ``None`` if nothing is."""
    try:
        sums = json.loads((folder / MANIFEST).read_text())
        for name, expected in sums.items():
            if _sha256(folder / name) != expected:
                return f"{name} does not match its checksum"
    except (OSError, ValueError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return None
