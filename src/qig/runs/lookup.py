"""Runs found in a store."""

from __future__ import annotations

from pathlib import Path

from qig.errors import StoreError
from qig.report.jobs import RUN_FILE, read_job
from qig.report.records import Run, load_run
from qig.store.artefacts import PARTIAL

KINDS = ("runs", "gradients", "quantized", "evaluation")
"""The kinds of artefacts that runs leave."""


def check_store(store: Path) -> None:
    """Refuse a folder that is no store.

    Raises:
        StoreError: it is not there, or nothing in it looks like one.
    """
    if not any((store / kind).is_dir() for kind in KINDS):
        raise StoreError(f"no store at {store}: expected a folder with {', '.join(KINDS)} (--store, or QIG_STORE)")


def find_run(run: str, store: Path) -> Run:
    """The run of an id (or the beginning of one), of its folder in a store, or of the output folder of its job.

    Raises:
        StoreError: no such run, several that begin so, or one that has not finished.
    """
    if not run:
        raise StoreError("the run's id is empty (a variable that is not set?)")
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
    begun = [entry.name for entry in runs.glob("*") if entry.name.startswith(run)]
    if not (runs / run).is_dir() and begun:
        if len(begun) > 1:
            raise StoreError(f"{run!r} is the beginning of {len(begun)} runs: {', '.join(sorted(begun)[:5])}")
        run = begun[0]
    name = run.removeprefix(PARTIAL).partition(".")[0]
    if name != run or any(entry.name.startswith(f"{PARTIAL}{run}.") for entry in runs.glob(f"{PARTIAL}*")):
        raise StoreError(f"run {name} has not finished; run the same qig command again")
    return load_run(store, run)


def all_runs(store: Path) -> tuple[list[Run], list[str]]:
    """The finished runs that can be read, and what is wrong with the others.

    Raises:
        StoreError: no store there.
    """
    check_store(store)
    runs, problems = [], []
    for folder in artefacts(store, "runs"):
        try:
            runs.append(load_run(store, folder.name))
        except (StoreError, OSError) as error:
            problems.append(str(error))
    return runs, problems


def artefacts(store: Path, kind: str) -> list[Path]:
    """The finished folders of a kind, whether or not they are damaged."""
    if not (store / kind).is_dir():
        return []
    return sorted(folder for folder in (store / kind).iterdir() if folder.is_dir() and not folder.name.startswith("."))


def stages(run: Run) -> dict[str, str]:
    """Kind to key of the artefacts that a run refers to."""
    return {kind: key for kind in KINDS[1:] if (key := run.record["stages"].get(kind))}
