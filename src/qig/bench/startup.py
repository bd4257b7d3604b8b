"""Start-up: ``qig --help``, and a run that the store answers."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tqdm import tqdm

from qig.errors import QigError

TARGETS = {"qig --help": 2.0, "cached run": 5.0, "cached run, device=auto": 5.0}
"""Seconds at the most. Where there may be an accelerator, ``auto`` has to ask torch, whose import is the difference."""
RUN = ("method=rtn", "evaluation.limit=20", "evaluation.max_empty_share=1", "tracking=none", "device=cpu")


def startup(repetitions: int) -> list[dict]:
    """Medians of wall-clock and processor seconds of either command, each in a process of its own, in turn."""
    with TemporaryDirectory() as folder:
        run = [*RUN, f"store={folder}/store", f"hydra.run.dir={folder}/run"]
        commands = {"qig --help": ["--help"], "cached run": run, "cached run, device=auto": [*run, "device=auto"]}
        _run(run, Path(folder))
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for name in tqdm([*commands] * repetitions, desc="starts", unit="start", disable=None):
            found[name].append(_run(commands[name], Path(folder)))
    return [
        {
            "command": name,
            "repetitions": repetitions,
            "seconds": median(wall for wall, _ in times),
            "processor_seconds": median(own for _, own in times),
            "at_most": TARGETS[name],
        }
        for name, times in found.items()
    ]


def _run(arguments: Sequence[str], folder: Path) -> tuple[float, float]:
    """Wall-clock and processor seconds of one command.

    Raises:
        QigError: it fails.
    """
    before, start = _children(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "qig", *arguments], cwd=folder, env=os.environ, capture_output=True, text=True
    )
    if done.returncode:
        raise QigError(f"qig {' '.join(arguments)} failed: {done.stderr.strip()[-500:]}")
    return time.perf_counter() - start, _children() - before


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
