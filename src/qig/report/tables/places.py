"""Which runs stand in which cell of an experiment's table, and which runs of a control they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qig.experiment.gather import Found
from qig.report.records import Run
from qig.report.tables.placing import placing


@dataclass(frozen=True)
class Place:
    """A cell: the values of the row and column keys, its arm, and for each point averaged over its run and controls.

    ``controls``: name of a control to the runs it is paired with, in the order of ``runs``; absent where it is none.
    """

    keys: dict[str, Any]
    arm: str | None
    runs: tuple[Run, ...]
    controls: dict[str, tuple[Run, ...]]


def places(found: Found) -> list[Place]:
    """The cells of an experiment, in the order of its jobs.

    Raises:
        ConfigError: two runs fall into one cell, or a cell has two runs of a control to be compared with.
    """
    made = []
    for cell in placing(found.table, found.name, found.rows):
        runs = tuple(row.run for row in cell.chosen)
        controls = {name: tuple(row.run for row in partners) for name, partners in cell.controls.items()}
        if len(set(zip(run_ids(runs), *map(run_ids, controls.values()), strict=True))) == 1:
            # What neither a method nor its control reads (RTN has no calibration seed) is one run, not five.
            runs, controls = runs[:1], {name: partners[:1] for name, partners in controls.items()}
        made.append(Place(cell.keys, cell.chosen[0].arm, runs, controls))
    return made


def run_ids(runs: Sequence[Run]) -> list[str]:
    return [run.id for run in runs]
