"""Which runs stand in which cell of an experiment's table, and which runs of a control they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qig.errors import ConfigError
from qig.experiment.gather import Found, Row
from qig.report.differing import flatten
from qig.report.records import Run

NAMED_GROUPS = {"model": "name", "quant": "name", "sensitivity": "kind", "equalization": "kind", "rounding": "kind",
                "calibration": "kind"}


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
    table = found.table
    groups: dict[tuple, list[Row]] = {}
    for row in found.rows:
        if table.shown and row.arm not in table.shown:
            continue
        key = tuple(value_of(row, name) for name in (*table.rows, *table.columns))
        groups.setdefault(key, []).append(row)
    made = []
    for key, rows in groups.items():
        chosen: dict[tuple, Row] = {}
        for row in rows:
            point = tuple(value_of(row, name) for name in table.over)
            other = chosen.setdefault(point, row)
            if other.run.id != row.run.id:
                raise ConfigError(
                    f"{found.name}: runs {other.run.id} and {row.run.id} fall into one cell {key}; "
                    "name what tells them apart in rows, columns or over"
                )
        controls = {}
        for control in table.controls:
            partners = [_partner(found, row, control) for row in chosen.values()]
            if rows[0].arm != control and None not in partners:
                controls[control] = tuple(partners)
        runs = tuple(row.run for row in chosen.values())
        if len(set(zip(run_ids(runs), *map(run_ids, controls.values()), strict=True))) == 1:
            # What neither a method nor its control reads (RTN has no calibration seed) is one run, not five.
            runs, controls = runs[:1], {name: partners[:1] for name, partners in controls.items()}
        names = dict(zip((*table.rows, *table.columns), key, strict=True))
        made.append(Place(names, rows[0].arm, runs, controls))
    return made


def run_ids(runs: Sequence[Run]) -> list[str]:
    return [run.id for run in runs]


def value_of(row: Row, key: str) -> Any:
    """``arm``; a swept key as it was written; or a key of the run's configuration as it would be written.

    ``None`` where the run has no such key.
    """
    if key == "arm":
        return row.arm
    if key in row.point:
        return row.point[key]
    if key in NAMED_GROUPS:
        return row.run.config[key][NAMED_GROUPS[key]]
    value = flatten(row.run.config).get(key)
    return str(value) if isinstance(value, int | float) else value


def _partner(found: Found, row: Row, control: str) -> Run | None:
    """The control's run at the same point; keys that only one of them sweeps do not count."""
    fits = {
        other.run.id: other.run
        for other in found.rows
        if other.arm == control and all(row.point[key] == other.point[key] for key in row.point.keys() & other.point)
    }
    if len(fits) > 1:
        raise ConfigError(f"{found.name}: arm {row.arm!r} at {row.point} could be compared with any of {control!r}: "
                          f"{', '.join(fits)}; a control must be one run at each point")
    return next(iter(fits.values()), None)
