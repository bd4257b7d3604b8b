"""Runs found in a store."""

from __future__ import annotations

from pathlib import Path

from qig.errors import StoreError
from qig.report.records import Run, load_run

KINDS = ("runs", "gradients", "quantized", "evaluation")
"""The kinds of artefacts that runs leave."""
PARTIAL, DAMAGED = ".partial-", ".damaged-"


def check_store(store: Path) -> None:
    """Refuse a folder that is no store.

    Raises:
        StoreError: it is not there, or nothing in it looks like one.
    """
    if not any((store / kind).is_dir() for kind in KINDS):
        raise StoreError(f"no store at {store}: expected a folder with {', '.join(KINDS)} (--store, or QIG_STORE)")


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
