"""Experiments one after the other or several at a time, each step of each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LOGS = Path("outputs/paper")


class Together:
    """Runs Python commands; what one breaks, another does not feel, and nothing begins any more once it is stopped.

    Args:
        jobs: experiments at a time. One alone writes to the terminal, several each to ``LOGS/NAME.log``.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._running: set[subprocess.Popen] = set()
        self._stopped = False

    def run(self, steps: Mapping[str, Sequence[Sequence[str]]]) -> list[str]:
        """The names of those that failed. All steps of an experiment run, also behind one that fails."""
        done: list[str] = []

        def experiment(name: str) -> bool:
            begun = time.monotonic()
            self._tell(name, "begins")
            if self.jobs > 1:
                (LOGS / f"{name}.log").unlink(missing_ok=True)
            good = not any([self._step(name, step) for step in steps[name]])  # a list: none is left out
            done.append(name)
            what = "done" if good else "failed" if self.jobs == 1 else f"failed, see {LOGS / name}.log"
            self._tell(name, f"{what}, {time.monotonic() - begun:.0f} s, {len(done)} of {len(steps)}")
            return good

        pool = ThreadPoolExecutor(self.jobs)
        try:
            good = list(pool.map(experiment, steps))
        except BaseException:  # a signal: it reaches the processes, too, and what has not begun is left out
            self._stopped = True
            for process in self._running.copy():
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        return [name for name, one in zip(steps, good, strict=True) if not one]

    def _step(self, name: str, arguments: Sequence[str]) -> int:
        """The exit status."""
        if self._stopped:
            return 1
        command = [sys.executable, *arguments]
        if self.jobs == 1:
            return self._wait(subprocess.Popen(command))
        LOGS.mkdir(parents=True, exist_ok=True)
        with (LOGS / f"{name}.log").open("a") as log:
            return self._wait(subprocess.Popen(command, stdout=log, stderr=log))

    def _wait(self, process: subprocess.Popen) -> int:
        self._running.add(process)
        if self._stopped:
            process.terminate()
        try:
            return process.wait()
        finally:
            self._running.discard(process)

    def _tell(self, name: str, what: str) -> None:
        if not self._stopped:
            print(f"== {name}: {what}", flush=True)
