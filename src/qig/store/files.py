"""Files that are complete or not there: checksums, manifests, what reaches the disk, and what a full disk says."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MANIFEST = "MANIFEST.json"


def _numbers(*names: str) -> frozenset[int]:
    return frozenset(getattr(errno, name) for name in names if hasattr(errno, name))


DISK_ERRORS = _numbers("ENOSPC", "EDQUOT", "EROFS", "EFBIG", "EIO")
"""What a disk says wherever it is asked to write."""
FOLDER_ERRORS = DISK_ERRORS | _numbers("EACCES", "EPERM", "ENOTDIR", "EISDIR", "EEXIST", "ENAMETOOLONG")
"""And what the store's own folders may say; elsewhere these can be a build's own trouble."""
# Libraries in Rust and C++ hand an errno on as text.
_OS_ERROR = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]")


def disk_trouble(error: BaseException) -> OSError | None:
    """The full, read-only or broken disk behind an exception, which a library may have wrapped; else ``None``."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        if isinstance(found, OSError) and found.errno in DISK_ERRORS:
            return found
        named = {int(number) for pair in _OS_ERROR.findall(str(found)) for number in pair if number} & DISK_ERRORS
        if named:
            number = named.pop()
            return OSError(number, os.strerror(number))
        found = found.__cause__ or found.__context__
    return None


def write_json(path: Path, value: object) -> None:
    """Write JSON under a temporary name, to the disk, then rename: readers see the old file or the new one."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """The same with any text, whose line ends stay as they are; what cannot be finished leaves nothing."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """A file's content, or a folder's names, to the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def publish(folder: Path, target: Path) -> None:
    """Checksums, all of it to the disk, then the folder's final name: it is there and complete, or not there.

    Raises:
        OSError: the disk does not allow it, or something is at ``target`` already.
    """
    write_manifest(folder)
    folder.rename(target)
    sync(target.parent)


@contextmanager
def part(target: Path) -> Iterator[Path]:
    """A folder to write into that becomes ``target``, with checksums, when all went well within the context.

    That is a piece of a resumable build: whoever goes on from it asks ``find_damage`` first.
    """
    temporary = target.with_name(target.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    shutil.rmtree(target, ignore_errors=True)
    publish(temporary, target)


def write_manifest(folder: Path, without: str = "") -> None:
    """Checksums of all files of a folder, written last and after everything has reached the disk.

    ``without``: a folder inside whose files are not meant to stay.
    """
    for inner in sorted(f for f in folder.rglob("*") if f.is_file() or f.is_dir()):
        sync(inner)
    sums = {str(file.relative_to(folder)): sha256(file) for file in _files(folder)
            if file.relative_to(folder).parts[0] != without}  # fmt: skip
    write_json(folder / MANIFEST, sums)
    sync(folder)


def find_damage(folder: Path) -> str | None:
    """What is wrong with a finished folder, by its manifest of checksums; ``None`` if nothing is."""
    try:
        sums = json.loads((folder / MANIFEST).read_text(), object_pairs_hook=_once)
        for name, expected in sums.items():
            if Path(name).is_absolute() or ".." in Path(name).parts:
                return f"its manifest names {name!r}, which is elsewhere"
            if sha256(folder / name) != expected:
                return f"{name} does not match its checksum"
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; a flipped bit can make two names of a manifest one, and leave a file without its checksum."""
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name stands in it twice")
    return dict(pairs)


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file != folder / MANIFEST)
