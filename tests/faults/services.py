"""Experiment tracking that dies: W&B's own process is killed, or its server cannot be reached."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil

from faults.bits import differences
from faults.report import Cases
from faults.workload import Bench

WANDB = ["tracking=wandb"]


def service_killed(cases: Cases, name: str, reference: Path, root: Path) -> None:
    """W&B's process is killed while the run is under way."""
    bench = Bench(root)
    child = bench.start(name, *WANDB, inside=lambda: os.environ.update(WANDB_MODE="offline"))
    service = None
    while child.running() and service is None:
        service = next((p for p in psutil.Process(child.pid).children(recursive=True) if "wandb" in p.name()), None)
        time.sleep(0.02)
    if service is not None:
        service.kill()
    child.wait()
    said = child.said()
    wrong = [f"exit status {child.code}: {said[-800:]}"] if child.code else []
    wrong += [] if service is not None else ["W&B never ran"]
    wrong += [f"a traceback: {said[-800:]}"] if "Traceback" in said else []
    cases.add("W&B's process killed", 1, wrong + differences(bench.store, reference))
    bench.clear()


def no_server(cases: Cases, name: str, reference: Path, root: Path) -> None:
    """W&B is told to be online, and nobody answers."""
    bench = Bench(root)
    environment = {"WANDB_MODE": "online", "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40}
    child = bench.run(name, *WANDB, inside=lambda: os.environ.update(environment))
    said = child.said()
    wrong = [f"exit status {child.code}: {said[-800:]}"] if child.code else []
    wrong += [f"a traceback: {said[-800:]}"] if "Traceback" in said else []
    cases.add("W&B's server out of reach", 1, wrong + differences(bench.store, reference))
    bench.clear()
