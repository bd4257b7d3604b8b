"""The figures of an experiment, from its cells and its runs."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qig.errors import QigError, StoreError
from qig.experiment.spec import Table, read_figures
from qig.report.figures import OF_SWEEP
from qig.report.figures.collect import worth_a_picture, write_run_figure
from qig.report.figures.files import kind_of, slug, write
from qig.report.records import Run

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


def write_experiment_figures(
    cells: pd.DataFrame, arms: Sequence[tuple[str, Run]], table: Table, folder: Path, kinds: Sequence[str]
) -> list[Path]:
    """Write the named figures into ``folder``; returns the paths of their CSV, PDF and PNG files.

    ``cells``: a line a cell and metric, in fractions of 1: the row and column keys (``arm`` among them), ``metric``,
    ``value, low, high``, ``runs``, and ``vs_<control>`` with ``_low``, ``_high`` and ``_holm``. ``arms``: each job's
    arm and run. Differences are drawn once a control; figures of single runs for the first run that has what they
    show. A figure that the experiment has no data for (another model's image tokens, too few bit widths) is a warning.
    What the folder holds of figures of earlier runs goes.

    Raises:
        ConfigError: no such kind of figure.
    """
    read_figures(kinds)
    names = {run.id: arm for arm, run in arms}
    runs = list({run.id: run for _, run in arms}.values())
    written = []
    for kind in kinds:
        try:
            if kind in OF_SWEEP:
                for suffix, frame in _frames(kind, cells, runs, names, table):
                    written += write(kind, frame, folder, suffix)
            else:
                written += _of_a_run(kind, runs, folder)
        except QigError as error:
            log.warning("%s: figure %s is not drawn: %s", folder.name, kind, error)
    _remove_others(folder, {path.stem for path in written})
    return written


def _remove_others(folder: Path, stems: Collection[str]) -> None:
    """Figures of runs that the experiment has no more: they would stand beside a table of others."""
    for path in folder.glob("*"):
        if kind_of(path) is not None and path.name.partition(".")[0] not in stems:
            path.unlink()


def _frames(kind: str, cells: pd.DataFrame, runs: Sequence[Run], names: dict[str, str],
            table: Table) -> list[tuple[str, pd.DataFrame]]:
    from qig.report.figures import accuracy_bits, calibration_cost, completeness_nodes, method_differences

    arms = [names[run.id] for run in runs]
    if kind == "method_differences":
        known, keys = {run.id: run for run in runs}, [*table.rows, *table.columns]
        return [(slug(control), method_differences.data_of_cells(cells, keys, control, known, table.label))
                for control in table.controls]
    if kind == "accuracy_bits":
        lines = cells[cells.metric == "accuracy"]
        frame = lines.assign(run=[str(ids).split()[0] for ids in lines.runs]).drop_duplicates("run")
        frame = frame.rename(columns={"value": "accuracy", "low": "accuracy_low", "high": "accuracy_high"})
        return [("", accuracy_bits.data(frame, runs, arms))]
    if kind == "calibration_cost":
        return [("", calibration_cost.data(runs, arms))]
    return [("", completeness_nodes.data(runs))]


def _of_a_run(kind: str, runs: Sequence[Run], folder: Path) -> list[Path]:
    reason: QigError = StoreError("no run weighs tokens")
    for run in worth_a_picture(runs, len(runs)):
        try:
            return write_run_figure(kind, run, folder)
        except QigError as error:  # another run may have it
            reason = error
    raise reason
