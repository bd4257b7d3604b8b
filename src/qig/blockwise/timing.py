"""Seconds by stage, and the peak of host and device memory while work is under way."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch


def worked(device: torch.device) -> float:
    """Seconds of work, of which differences count: those of all threads of this process where the processor does it;
    elsewhere by the clock, once the device has done what was asked of it.
    """
    if device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize(device)
    return time.perf_counter()


class Stopwatch:
    """Adds up seconds under names: ``seconds`` by the clock, ``work_seconds`` as ``worked`` has them.

    An accelerator is waited for at both ends of a stage: what is queued in one would be counted in the next.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self.work_seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        before, start = worked(self.device), time.perf_counter()
        try:
            yield
        finally:
            passed = worked(self.device) - before
            self.add(name, time.perf_counter() - start)
            self.work_seconds[name] = self.work_seconds.get(name, 0.0) + passed

    def add(self, name: str, seconds: float) -> None:
        """What was not measured here."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds


class PeakMemory:
    """Highest resident size of this process within the context, sampled, and the device's own highest allocation."""

    INTERVAL = 0.02  # seconds

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.host_bytes = 0
        self.device_bytes: int | None = None

    def __enter__(self) -> PeakMemory:
        self._process = psutil.Process()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        if self.device.type == "cuda":
            torch.cuda.init()  # a fresh process has not yet, and then cannot reset
            torch.cuda.reset_peak_memory_stats(self.device)
        self._thread.start()
        return self

    def _sample(self) -> None:
        while True:
            self.host_bytes = max(self.host_bytes, self._process.memory_info().rss)
            if self._stop.wait(self.INTERVAL):
                return

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.device_bytes = self.so_far()["peak_device_bytes"]

    def so_far(self) -> dict[str, int | None]:
        """``peak_host_bytes``, and ``peak_device_bytes`` where the device counts its own."""
        on_device = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None
        return {"peak_host_bytes": self.host_bytes, "peak_device_bytes": on_device}


def larger(*memories: dict[str, int | None]) -> dict[str, int | None]:
    """The peak of a whole is the largest of its parts' peaks."""
    names = {name for memory in memories for name in memory}
    return {
        name: max((m[name] for m in memories if m.get(name) is not None), default=None) for name in sorted(names)
    }
