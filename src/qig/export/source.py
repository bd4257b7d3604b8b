"""What is exported: a finished run, the folder of its integers, and the checkpoint that they were made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qig.errors import ModelError, StoreError
from qig.models import checkpoint
from qig.report.records import Run
from qig.runs.lookup import find_run
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
