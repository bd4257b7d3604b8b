"""An experiment's folder in ``results/`` read back: its sidecar, and the run records beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qig.errors import StoreError
from qig.experiment.spec import Table
from qig.report.tables.write import RECORDS


def sidecar(folder: Path) -> dict[str, Any]:
    """What led from the table's numbers to its runs: ``experiment``, ``overrides``, ``cells``.

    Raises:
        StoreError: the folder is no experiment's.
    """
    for file in sorted(folder.glob("*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        if "experiment" in found and "cells" in found:
            return found
    raise StoreError(f"{folder} holds no table of an experiment, which qig-report NAME --to ... writes")


def record(folder: Path, run: str) -> dict[str, Any]:
    """The record of a run of the experiment in ``folder``.

    Raises:
        StoreError: it is not there.
    """
    file = folder.parent / RECORDS / f"{run}.json"
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"the record of run {run} is not in {file.parent}: {error.strerror}") from error


def named_by(table: Table) -> list[str]:
    """The keys that name a cell beside its arm."""
    return [key for key in (*table.rows, *table.columns) if key != "arm"]
