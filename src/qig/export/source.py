"""What is exported: a finished run, the folder of its integers, and the checkpoint that they were made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qig.errors import ModelError, StoreError
from qig.models import checkpoint
from qig.report.jobs import RUN_FILE, read_job
from qig.report.records import Run, load_run
from qig.store import find_damage


@dataclass(frozen=True)
class Source:
    """``stage`` holds the integers of the run's blocks, ``checkpoint`` the 16-bit model."""

    run: Run
    stage: Path
    checkpoint: Path

    @property
    def model(self) -> Mapping[str, Any]:
        return self.run.config["model"]

    @property
    def quant(self) -> Mapping[str, Any]:
        return self.run.config["quant"]


def open_source(run: str, store: Path) -> Source:
    """The source for a run's id (or the beginning of one), its folder in a store, or the output folder of its job.

    Raises:
        StoreError: no such run, one that has not finished, that quantizes nothing, or whose integers are damaged.
        ModelError: the checkpoint is gone, or another one stands in its place.
    """
    found = find_run(run, store)
    stage = found.quantized_folder
    if stage is None:
        raise StoreError(f"run {found.id} is a 16-bit run: there are no integers to export")
    problem = find_damage(stage)
    if problem is not None:
        raise StoreError(f"{stage} is absent or damaged ({problem}); run the same qig command again to make it anew")
    path, expected = found.record["checkpoint"]["path"], found.record["checkpoint"]["sha256"]
    directory = checkpoint.resolve(path)
    if checkpoint.content_hash(directory) != expected:
        raise ModelError(f"run {found.id} was made from another checkpoint than the one now at {path}")
    return Source(found, stage, directory)


def find_run(run: str, store: Path) -> Run:
    """The run of an id (or the beginning of one), of its folder in a store, or of the output folder of its job.

    Raises:
        StoreError: no such run, several that begin so, or one that has not finished.
    """
    folder = Path(run)
    if (folder / RUN_FILE).is_file():
        left = read_job(folder)
        if left.run is None:
            raise StoreError(f"{folder}: {left.error}")
        store, run = left.store, left.run
    elif folder.is_dir():
        if not (folder / "record.json").is_file():
            raise StoreError(f"{folder} holds no record.json: expected a finished run's folder, or its id")
        store, run = folder.absolute().parents[1], folder.name
    runs = store / "runs"
    begun = [entry.name for entry in runs.glob("*") if entry.name.startswith(run) and run]
    if not (runs / run).is_dir() and begun:
        if len(begun) > 1:
            raise StoreError(f"{run!r} is the beginning of {len(begun)} runs: {', '.join(sorted(begun)[:5])}")
        run = begun[0]
    name = run.removeprefix(".partial-").partition(".")[0]
    if name != run or any(entry.name.startswith(f".partial-{run}.") for entry in runs.glob(".partial-*")):
        raise StoreError(f"run {name} has not finished; run the same qig command again")
    return load_run(store, run)
