"""``python -m qig.report.replicates``: how much of a difference is due to the last bits of sums?

A run's bits are a function of its configuration, code, libraries, threads and kind of device. GPTQ carries each
rounding decision on into all that follow, so that sums that differ in their last bits (another version of the code,
another machine) end in another model, as good a result of the same method. Two folders that hold the same experiment,
made twice in that sense, say how far this alone moves a run, and what is left of the differences of arms over both.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from qig.commands import told
from qig.errors import StoreError
from qig.experiment.gather import table_of
from qig.experiment.spec import Table
from qig.report.cells import difference, plain
from qig.report.records import Run
from qig.report.tables.markdown import pipe
from qig.report.tables.written import named_by, record, sidecar
from qig.store.files import write_text

UNITS = {"accuracy": (100, 1, "points"), "nll": (1, 3, "nats")}
"""Factor, digits and unit of what is printed."""
COMPARED = ("first", "again", "both", "low", "high", "p")


def data(first: Path, again: Path) -> tuple[pd.DataFrame, Table]:
    """A row a control, metric and cell that both folders have; and how the experiment is tabulated.

    Columns: what names the cell; ``metric``; ``runs``, the pairs of the same calibration seed; ``moved``, the standard
    deviation of one run, ``sqrt(mean d^2 / 2)`` with d the differences within pairs; ``control``; ``first`` and
    ``again``, the mean difference to it in either folder; ``both`` with ``low``, ``high`` and ``p``: the mean over
    seeds of what both say, with a t-interval (95%) and t-test over the seeds alone; none of these for the control
    itself. Fractions of 1, nats.

    Raises:
        StoreError: the folders hold different experiments, no cell in common, or a cell's seeds differ.
    """
    written = [sidecar(folder) for folder in (first, again)]
    one, other = ((found["experiment"], found["overrides"]) for found in written)
    if one != other:
        raise StoreError(f"{first} and {again} hold different experiments: {_named(*one)}, and {_named(*other)}")
    table = table_of(*one)
    keys = [*named_by(table), "arm"]
    cells = [{(*(cell[key] for key in keys), cell["metric"]): cell for cell in found["cells"]} for found in written]
    common = [place for place in cells[0] if place in cells[1]]
    if not common:
        raise StoreError(f"{first} and {again} have no arm in common")
    controls = [control for control in table.controls if control in {place[-2] for place in common}]
    if not controls:
        raise StoreError(f"{first} and {again} have no control of experiment {one[0]} in common")
    rows = []
    for place in common:
        *_, arm, metric = place
        pair = [(folder, own[place]) for folder, own in zip((first, again), cells, strict=True)]
        values = _values(pair, "runs", metric)
        moved = np.sqrt(np.mean(np.diff(values, axis=0) ** 2) / 2)
        row = {**dict(zip(keys, place, strict=False)), "metric": metric, "runs": values.shape[1], "moved": moved}
        for control in controls:
            found = dict.fromkeys(COMPARED, np.nan)
            if arm != control:
                found = _differences(values - _values(pair, f"vs_{control}_runs", metric))
            rows.append({**row, "control": control, **found})
    return pd.DataFrame(rows), table


def _values(pair: Sequence[tuple[Path, Mapping[str, Any]]], runs: str, metric: str) -> np.ndarray:
    """``[2, seeds]``: of either folder's cell, the runs that it has under this name, in the order of their seeds."""
    records = [sorted((record(folder, run) for run in cell[runs]), key=_seed) for folder, cell in pair]
    first, again = ([_seed(found) for found in row] for row in records)
    unread = all(len(set(cell[runs])) == 1 < len(cell[runs]) for _, cell in pair)  # one run for every seed
    if len(first) != len(again) or (first != again and not unread):
        (one, cell), (other, _) = pair
        raise StoreError(f"{cell['arm']}, {runs}: calibration seeds {first} in {one}, {again} in {other}; expected the "
                         "same ones")
    return np.array([[_value(found, metric) for found in row] for row in records])


def _seed(found: Mapping[str, Any]) -> int:
    return found["config"]["seed"]


def _value(found: Mapping[str, Any], metric: str) -> float:
    """Mean over what tables combine (``Run.combined``): the benchmarks, or running text where it is alone."""
    corpus, metrics = Run(Path(), found).corpus, found["metrics"]
    return float(np.mean([metrics[task][metric] for task in metrics.keys() - {corpus} or metrics]))


def _differences(values: np.ndarray) -> dict[str, float]:
    """Of differences to a control ``[2, seeds]``."""
    means = values.mean(axis=0)
    found = stats.ttest_1samp(means, 0)
    low, high = found.confidence_interval()
    first, again = values.mean(axis=1)
    return dict(zip(COMPARED, (first, again, means.mean(), low, high, found.pvalue), strict=True))


def page(frame: pd.DataFrame, table: Table, command: str) -> str:
    """The numbers in Markdown: of all arms together how far a run moves, then each arm beside each control."""
    parts = [_section(own, table, metric) for metric, own in frame.groupby("metric", sort=False)]
    return "\n".join(("## The same runs twice\n", *parts, "Intervals (95%) and p: t-test over calibration seeds, each "
                      "of them the mean of its two pairs; not corrected for the number of arms.\n\n"
                      f"Made by `{command}`.\n"))


def _section(frame: pd.DataFrame, table: Table, metric: str) -> str:
    scale, digits, unit = UNITS[metric]
    cells = frame[frame["control"] == frame["control"].iloc[0]]
    moved, seeds = scale * float(np.sqrt(np.average(cells["moved"] ** 2, weights=cells["runs"]))), cells["runs"].max()
    compared = (_compared(own, table, control, UNITS[metric]) for control, own in frame.groupby("control", sort=False))
    return (f"### {metric}, {unit}\n\nOf {cells['runs'].sum()} pairs of runs with the same calibration seed: the last "
            f"bits of sums alone move a run by {moved:.{digits}f} {unit} (standard deviation), a difference of two "
            f"runs by {moved * 2 ** 0.5:.{digits}f}, and its mean over {seeds} seeds by "
            f"{moved * (2 / seeds) ** 0.5:.{digits}f}.\n\n" + "\n".join(compared))


def _compared(frame: pd.DataFrame, table: Table, control: str, unit: tuple[int, int, str]) -> str:
    scale, digits, _ = unit
    keys = named_by(table)

    def shown(value: float, low: float | None = None, high: float | None = None) -> str:
        return difference(value, low, high, scale=scale, digits=digits)

    lines = [[*(table.label(key, row[key]) for key in keys), table.label("arm", row["arm"]),
              plain(scale * row["moved"], digits), shown(row["first"]), shown(row["again"]),
              shown(row["both"], row["low"], row["high"]), plain(row["p"], 3)] for row in frame.to_dict("records")]
    heads = [*keys, "arm", "a run moves by", f"vs {table.label('arm', control)}, first", "again", "both", "p"]
    return pipe(heads, lines, len(keys) + 1) + "\n"


def _named(experiment: str, overrides: Sequence[str]) -> str:
    return " ".join((experiment, *overrides))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 after a message about what cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m qig.report.replicates", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, help="an experiment's folder, such as results/seeds")
    parser.add_argument("again", type=Path, help="the same experiment's, made anew; written into")
    options = parser.parse_args(arguments)
    return told("qig.report.replicates", lambda: print(*_write(options.first, options.again), sep="\n"))


def _write(first: Path, again: Path) -> list[Path]:
    frame, table = data(first, again)
    written = [again / "replicates.csv", again / "replicates.md"]
    write_text(written[0], frame.to_csv(index=False))
    command = f"python -m qig.report.replicates {first.as_posix()} {again.as_posix()}"
    write_text(written[1], page(frame, table, command))
    return written


if __name__ == "__main__":
    sys.exit(main())
