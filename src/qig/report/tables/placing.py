"""Which jobs of an experiment fall into which cell of its table: known before any of them runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from qig.config.schema import Config
from qig.errors import ConfigError, meant
from qig.experiment.jobs import Job
from qig.experiment.spec import Table
from qig.report.differing import flatten

NAMED_GROUPS = {"model": "name", "quant": "name", "sensitivity": "kind", "equalization": "kind", "rounding": "kind",
                "calibration": "kind"}
AVERAGED = "seed"
"""The swept key whose values are draws of the same: averaged over unless a table places it."""


class Placeable(Protocol):
    """A job, run or yet to run: its arm, the swept keys' values as written, its run's id, its configuration."""

    @property
    def arm(self) -> str | None: ...
    @property
    def point(self) -> Mapping[str, str]: ...
    @property
    def id(self) -> str: ...
    @property
    def config(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Foreseen:
    """A job before it has run; jobs with the same ``id`` are one run."""

    arm: str | None
    point: Mapping[str, str]
    id: str
    config: Mapping[str, Any]

    @classmethod
    def of(cls, job: Job, config: Config, run: str) -> Foreseen:
        return cls(job.arm, dict(job.point), run, asdict(config))


@dataclass(frozen=True)
class Cell:
    """``chosen``: a job for each point averaged over; ``controls``: of each control, the job paired with each."""

    keys: dict[str, Any]
    chosen: list[Any]
    controls: dict[str, list[Any]]


def checked_table(table: Table, name: str, rows: Sequence[Placeable]) -> Table:
    """The table of these jobs of experiment ``name``: over a swept seed, unless its rows or columns have it.

    Raises:
        ConfigError: as :func:`placing`; or no job has a key of its rows, columns or over.
    """
    known = {"arm", *NAMED_GROUPS}.union(*({*row.point, *flatten(row.config)} for row in rows))
    for key in (*table.rows, *table.columns, *table.over):
        if key not in known:
            raise ConfigError(f"{name}: no job has {key!r}, which the table's rows, columns or over name"
                              f"{meant(key, known)}; expected 'arm', a swept key, or a key of the configuration")
    swept = any(AVERAGED in row.point for row in rows)
    if swept and AVERAGED not in (*table.rows, *table.columns, *table.over):
        table = replace(table, over=[*table.over, AVERAGED])
    placing(table, name, rows)
    return table


def placing(table: Table, name: str, rows: Sequence[Placeable]) -> list[Cell]:
    """The cells, in the order of the jobs.

    Raises:
        ConfigError: two runs fall into one cell, or a cell has two runs of a control to be compared with.
    """
    groups: dict[tuple, list[Any]] = {}
    for row in rows:
        if table.shown and row.arm not in table.shown:
            continue
        key = tuple(value_of(row, key) for key in (*table.rows, *table.columns))
        groups.setdefault(key, []).append(row)
    made = []
    for key, inside in groups.items():
        chosen: dict[tuple, Any] = {}
        for row in inside:
            other = chosen.setdefault(tuple(value_of(row, key) for key in table.over), row)
            if other.id != row.id:
                raise ConfigError(_crowded(table, name, key, other, row))
        controls = {}
        for control in table.controls:
            partners = [_partner(name, row, control, rows) for row in chosen.values()]
            if inside[0].arm != control and None not in partners:
                controls[control] = partners
        made.append(Cell(dict(zip((*table.rows, *table.columns), key, strict=True)), list(chosen.values()), controls))
    return made


def _crowded(table: Table, name: str, key: tuple, one: Placeable, other: Placeable) -> str:
    apart = [key for key in {**one.point, **other.point} if one.point.get(key) != other.point.get(key)]
    named = ",".join(apart) or "KEY"
    over, rows = (",".join([*keys, named]) for keys in (table.over, table.rows))
    return (f"{name}: runs {one.id} and {other.id} fall into one cell {key}; name what tells them apart in rows, "
            f"columns or over: '++hydra.sweeper.table.over=[{over}]' averages, 'hydra.sweeper.table.rows=[{rows}]' "
            "gives each a line")


def value_of(row: Placeable, key: str) -> Any:
    """``arm``; a swept key as it was written; or a key of the run's configuration as it would be written.

    ``None`` where the run has no such key.
    """
    if key == "arm":
        return row.arm
    if key in row.point:
        return row.point[key]
    if key in NAMED_GROUPS:
        return row.config[key][NAMED_GROUPS[key]]
    value = flatten(row.config).get(key)
    return str(value) if isinstance(value, int | float) else value


def _partner(name: str, row: Placeable, control: str, rows: Iterable[Placeable]) -> Placeable | None:
    """The control's run at the same point; keys that only one of them sweeps do not count."""
    fits = {
        other.id: other
        for other in rows
        if other.arm == control and all(row.point[key] == other.point[key] for key in row.point.keys() & other.point)
    }
    if len(fits) > 1:
        raise ConfigError(f"{name}: arm {row.arm!r} at {row.point} could be compared with any of {control!r}: "
                          f"{', '.join(fits)}; a control must be one run at each point")
    return next(iter(fits.values()), None)
