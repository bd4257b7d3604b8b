"""Artefacts: each is a folder under ``KIND/KEY``, complete or not there.

Work happens in ``KIND/.partial-KEY.CLAIM`` under a lock. A finished folder gets a manifest of checksums and is renamed;
one whose content does not match its manifest is set aside and made again.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from qig.errors import QigError, StoreError
from qig.store.files import FOLDER_ERRORS, disk_trouble, find_damage, publish
from qig.store.locks import Holder, Lock, give_up, holder

PARTIAL, DAMAGED = ".partial-", ".damaged-"
"""How the names of folders begin that are not finished, or were set aside."""
log = logging.getLogger(__name__)


class Store:
    """A folder of artefacts that many processes share, on a local disk or on NFS.

    Raises:
        StoreError: the folder cannot be created or written.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().absolute()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"the store {self.root} cannot be created: {error}") from error

    def path(self, kind: str, key: str) -> Path:
        return self.root / kind / key

    def find(self, kind: str, key: str) -> Path | None:
        """The finished artefact, its checksums verified; ``None`` if there is none, or it is damaged."""
        folder = self.path(kind, key)
        if not folder.is_dir():
            return None
        damage = find_damage(folder)
        if damage is not None:
            log.warning("%s %s is damaged: %s", kind, key, damage)
        return folder if damage is None else None

    def set_aside(self, kind: str, key: str, reason: Callable[[], str | None]) -> None:
        """Set a finished artefact aside that is of no use any more; ``reason``, asked under its lock, may keep it.

        Raises:
            StoreError: it cannot be set aside.
        """
        folder = self.path(kind, key)
        with self._lock(kind, key):
            if folder.is_dir() and (said := reason()) is not None:
                self._aside(folder, kind, key, said)

    def holder(self, kind: str, key: str) -> Holder | None:
        """Who is making an artefact just now; ``None`` if nobody is."""
        return holder(self._lock_folder(kind, key))

    def make(self, kind: str, key: str, build: Callable[[Path], None], *, resumable: bool = False) -> tuple[Path, bool]:
        """The artefact, made by ``build(folder)`` if need be; and whether it was there already.

        ``build`` writes into an empty folder, or, if ``resumable``, into the one that an interrupted attempt left; it
        must trust nothing there without its checksum. If it raises, nothing is left that a later run would take for
        finished. While another process makes the artefact, this one waits.

        Raises:
            StoreError: the disk is full or not writable, or another process took over since this one seemed dead.
        """
        found = self.find(kind, key)
        if found:
            give_up(self._lock_folder(kind, key))  # whoever made it may have been killed at its last step
            return found, True
        with self._lock(kind, key) as lock:
            found = self._cleared(kind, key)  # another process may have made it meanwhile
            if found:
                return found, True
            partial = self.root / kind / f"{PARTIAL}{key}.{lock.claim}"
            try:
                self._begin(partial, key, resumable)
                build(partial)
                publish(partial, self.path(kind, key))
            except Exception as error:
                explained = self._explained(error, kind, key, lock)
                if explained is error:
                    raise
                raise explained from error
            finally:
                with contextlib.suppress(OSError):
                    if resumable:
                        partial.rmdir()  # if there is nothing to go on from
                    else:
                        shutil.rmtree(partial)
        return self.path(kind, key), False

    def _cleared(self, kind: str, key: str) -> Path | None:
        """The finished artefact; a damaged one is set aside, which only the lock's owner may do."""
        folder = self.path(kind, key)
        if not folder.is_dir():
            return None
        damage = find_damage(folder)
        if damage is None:
            return folder
        self._aside(folder, kind, key, damage)
        return None

    def _aside(self, folder: Path, kind: str, key: str, damage: str) -> None:
        aside = folder.with_name(f"{DAMAGED}{key}")
        try:
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
        except OSError as error:
            raise StoreError(f"{kind} {key} is damaged ({damage}) and cannot be set aside: {error}") from error
        log.warning("%s %s is set aside as %s and made again: %s", kind, key, aside.name, damage)

    @staticmethod
    def _begin(partial: Path, key: str, resumable: bool) -> None:
        """The folder of this claim. What an earlier owner left gets the new claim's name, or goes.

        An owner that only seemed dead then writes where nothing is any more, and cannot publish.
        """
        partial.parent.mkdir(parents=True, exist_ok=True)
        prefix = f"{PARTIAL}{key}."
        left = [folder for folder in partial.parent.iterdir() if folder.name.startswith(prefix)]
        left.sort(key=lambda folder: folder.stat().st_mtime_ns)
        if resumable and left:
            left.pop().rename(partial)
        else:
            partial.mkdir()
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)

    def _explained(self, error: Exception, kind: str, key: str, lock: Lock) -> Exception:
        """What a build raised, or a StoreError if the trouble is the store's."""
        if isinstance(error, QigError):
            return error
        if not lock.held:
            return StoreError(
                f"{kind} {key}: this process gave no sign of life for so long that another one took over; "
                "run the same command again to use what that one finds"
            )
        trouble = disk_trouble(error)
        if trouble is None and isinstance(error, OSError) and error.errno in FOLDER_ERRORS:
            trouble = error
        return error if trouble is None else self._unwritable(kind, key, trouble)

    def _unwritable(self, kind: str, key: str, error: OSError) -> StoreError:
        return StoreError(f"{kind} {key} could not be written under {self.root}: {error}")

    def _lock_folder(self, kind: str, key: str) -> Path:
        return self.root / "locks" / f"{kind}-{key}"

    @contextmanager
    def _lock(self, kind: str, key: str) -> Iterator[Lock]:
        folder = self._lock_folder(kind, key)
        lock = Lock(folder.parent, folder.name)
        try:
            lock.__enter__()
        except OSError as error:
            raise self._unwritable(kind, key, error) from error
        try:
            yield lock
        finally:
            lock.__exit__()
