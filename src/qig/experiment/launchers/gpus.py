"""A GPU of its own for each process of a sweep on one machine."""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from qig.errors import ConfigError

VISIBLE = "CUDA_VISIBLE_DEVICES"
POLL = 0.2  # seconds


def visible_gpus() -> tuple[str, ...]:
    """The CUDA devices that this process may use, as ``CUDA_VISIBLE_DEVICES`` would name them."""
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return tuple(named[:count] if named else map(str, range(count)))


@cache
def take_gpu(gpus: tuple[str, ...], folder: Path, seconds: float = 0.0) -> tuple[str, FileLock]:
    """A GPU that no other process of the sweep has, and the lock that keeps it until this process ends.

    ``seconds``: how long to wait for one, since a process that has finished its job may not have ended yet.

    Raises:
        ConfigError: more processes than GPUs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    while True:
        for gpu in gpus:
            lock = FileLock(folder / f"{gpu.replace('/', '-')}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            return gpu, lock
        if time.monotonic() >= end:
            break
        time.sleep(POLL)
    raise ConfigError(f"all of {len(gpus)} GPUs are taken by other jobs of this sweep; let fewer run at once")
