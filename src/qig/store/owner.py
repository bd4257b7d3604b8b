"""Who holds a lock, and whether that process is certainly gone."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Owner:
    """A process.

    Attributes:
        host: name of its machine.
        space: where its number means something: this boot of the machine, this namespace of processes.
        pid: its number.
        started: its start in the units of its kernel, not those of a clock that may be set; tells a number used twice.
    """

    host: str
    space: str
    pid: int
    started: int

    @classmethod
    def me(cls) -> Owner:
        """This process."""
        pid = os.getpid()
        return cls(socket.gethostname(), _space(), pid, _start(pid) or 0)

    @property
    def runs(self) -> bool | None:
        """Whether it runs; ``None`` of a process of another machine, where that cannot be known."""
        return _start(self.pid) == self.started if self.space == _space() else None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@cache
def _space() -> str:
    """Machine, boot and process namespace: two containers of one name do not share their numbers."""
    parts = [socket.gethostname()]
    for read in (lambda: Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
                 lambda: os.readlink("/proc/self/ns/pid")):  # fmt: skip
        try:
            parts.append(read())
        except OSError:  # not Linux: the name must do
            parts.append("")
    return " ".join(parts)


def _start(pid: int) -> int | None:
    """When a process started; ``None`` if it does not run, which holds for one that only waits to be collected, too."""
    try:
        state, *values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else int(values[18])  # ticks since the boot
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else int(process.create_time())
    except psutil.NoSuchProcess:
        return None
