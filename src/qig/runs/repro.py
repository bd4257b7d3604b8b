"""``qig-runs repro RUN``: run the recorded configuration again in a fresh store, and compare it bit by bit.

Integers, scales, zero points and token weights of every block, then every answer, score and likelihood. Exit status 1
with the first difference. What the code, the packages or the machine differ in is said before.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from qig.config.recorded import recorded_config
from qig.config.schema import Config
from qig.errors import ModelError, StoreError
from qig.report.differing import flatten
from qig.report.records import Run, load_run
from qig.runs.bits import first_difference
from qig.runs.lookup import find_run
from qig.store import find_damage

IGNORED = ("environment.git.diff", "environment.git.untracked", "environment.variables.SLURM")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="an id, its beginning, or the output folder of a job")
    parser.add_argument("--to", type=Path, metavar="DIR", help="keep the new store there (default: it is removed)")


def run(options: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    original = find_run(options.run, options.store)
    for folder in (original.quantized_folder, original.store / "evaluation" / original.record["stages"]["evaluation"]):
        damage = None if folder is None else find_damage(folder)
        if damage is not None:
            raise StoreError(f"{folder} cannot be compared with: {damage}")
    config = recorded_config(original.record)
    if options.to is not None and options.to.exists() and any(options.to.iterdir()):
        raise StoreError(f"{options.to} is not empty: expected a folder for a fresh store")
    with TemporaryDirectory(prefix="qig-repro-") as temporary:
        config.store = str(options.to or temporary)
        again = _run(config, original)
        for key, before, now in _surroundings(original.record, again.record):
            print(f"differs: {key}: {before} then, {now} now")
        difference = first_difference(original, again)
    if difference is not None:
        print(f"run {original.id} is NOT reproduced: {difference}")
        return 1
    print(f"run {original.id} is reproduced bit by bit: {_what(original)}")
    return 0


def _run(config: Config, original: Run) -> Run:
    from qig.config.validation import resolve
    from qig.models import checkpoint
    from qig.stages import Stages

    config = resolve(config)
    found = checkpoint.content_hash(checkpoint.resolve(config.model.path))
    if found != original.record["checkpoint"]["sha256"]:
        raise ModelError(f"run {original.id} was made from another checkpoint than the one now at {config.model.path}")
    stages = Stages.of(config, found)
    name, _ = stages.record(config)
    return load_run(stages.store.root, name)


def _surroundings(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """What is not the same around the two runs."""
    parts = ("environment", "versions")
    sides = [flatten({name: record.get(name) or {} for name in parts}) for record in (before, now)]
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        then, new = (side.get(key) for side in sides)
        if then != new and not key.startswith(IGNORED):
            yield key, then, new


def _what(run: Run) -> str:
    integers = "" if run.quantized_folder is None else "integers, scales and weights of all blocks, "
    return f"{integers}{len(run.samples)} samples"
