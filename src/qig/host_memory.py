"""How much host memory a process may still take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

GROUPS = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")
# Limit, use, and of the use (memory.stat) what is files, and which of those are held in memory alone, as in /dev/shm:
# the others give way. Of both versions of control groups.
VERSIONS = (
    ("memory.max", "memory.current", "file", "shmem"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache", "total_shmem"),
)


def free_bytes() -> int:
    """What the machine has free, or, if that is less, what the limits of a SLURM job or container leave of it.

    The system kills a process that takes more; it is not told.
    """
    return max(0, min([psutil.virtual_memory().available, *_left_by_limits()]))


def _left_by_limits() -> Iterator[int]:
    for group in _groups():
        for limit, used, files, held in VERSIONS:
            if (group / limit).is_file() and (most := (group / limit).read_text().strip()) != "max":
                parts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                gives_way = int(parts.get(files, 0)) - int(parts.get(held, 0))
                yield int(most) - int((group / used).read_text()) + gives_way


def _groups() -> Iterator[Path]:
    """Folders of the control groups of this process whose limits hold for it: its own and those around it."""
    for line in GROUPS.read_text().splitlines() if GROUPS.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base = MOUNT / "memory" if controllers else MOUNT
        own = base / path.lstrip("/")
        yield from [own, *(parent for parent in own.parents if parent.is_relative_to(base))]
