"""``python -m qig.report.replicates``: how much of a difference is due to the last bits of sums?

A run's bits are a function of its configuration, code, libraries, threads and kind of device. GPTQ carries each
rounding decision on into all that follow, so that sums that differ in their last bits (another version of the code,
another machine) end in another model, as good a result of the same method. Two folders that hold the same experiment,
made twice in that sense, say how far this alone moves a run, and what is left of the differences of arms over both.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from qig.commands import told
from qig.errors import StoreError
from qig.experiment.gather import table_of
from qig.experiment.spec import Table
from qig.report.tables.markdown import pipe
from qig.report.tables.written import named_by, record, sidecar
from qig.store.files import write_text

UNITS = {"accuracy": (100, 1, "points"), "nll": (1, 3, "nats")}
"""Factor, digits and unit of what is printed."""


def data(first: Path, again: Path) -> tuple[pd.DataFrame, Table]:
    """A row a metric and cell that both folders have; and how the experiment is tabulated.

    Columns: what names the cell; ``metric``; ``runs``, the pairs of the same calibration seed; ``moved``, the standard
    deviation of one run, ``sqrt(mean d^2 / 2)`` with d the differences within pairs; ``first`` and ``again``, the mean
    difference to the first control in either folder; ``both`` with ``low``, ``high`` and ``p``: the mean over seeds of
    what both say, with a t-interval (95%) and t-test over the seeds alone. Fractions of 1, nats.

    Raises:
        StoreError: the folders hold different experiments, no cell in common, or a cell's seeds differ.
    """
    written = [sidecar(folder) for folder in (first, again)]
    one, other = ((found["experiment"], found["overrides"]) for found in written)
    if one != other:
        raise StoreError(f"{first} and {again} hold different experiments: {_named(*one)}, and {_named(*other)}")
    table = table_of(*one)
    if not table.controls:
        raise StoreError(f"experiment {one[0]} has no control to compare with")
    control, keys = table.controls[0], [*named_by(table), "arm"]
    cells = [{(*(cell[key] for key in keys), cell["metric"]): cell for cell in found["cells"]} for found in written]
    rows = []
    for place, cell in cells[0].items():
        if place in cells[1]:
            metric = cell["metric"]
            values = np.array([_values(first, cell["runs"], metric), _values(again, cells[1][place]["runs"], metric)])
            moved = np.sqrt(np.mean(np.diff(values, axis=0) ** 2) / 2)
            row: dict[str, Any] = dict(zip(keys, place[:-1], strict=True))
            row |= {"metric": metric, "runs": values.shape[1], "moved": moved}
            if cell["arm"] != control:
                controls = [_values(folder, own[place][f"vs_{control}_runs"], metric)
                            for folder, own in zip((first, again), cells, strict=True)]
                row |= _differences(values - np.array(controls))
            rows.append(row)
    if not rows:
        raise StoreError(f"{first} and {again} have no arm in common")
    return pd.DataFrame(rows), table


def _values(folder: Path, runs: Sequence[str], metric: str) -> list[float]:
    """Of the runs in the order of their seeds."""
    records = sorted((record(folder, run) for run in runs), key=lambda found: found["config"]["seed"])
    return [float(np.mean([task[metric] for task in found["metrics"].values()])) for found in records]


def _differences(values: np.ndarray) -> dict[str, float]:
    """Of differences to a control ``[2, seeds]``."""
    means = values.mean(axis=0)
    found = stats.ttest_1samp(means, 0)
    low, high = found.confidence_interval()
    first, again = values.mean(axis=1)
    return {"first": first, "again": again, "both": means.mean(), "low": low, "high": high, "p": found.pvalue}


def page(frame: pd.DataFrame, table: Table, command: str) -> str:
    """The numbers in Markdown: of all arms together how far a run moves, then each arm."""
    parts = [_section(own, table, metric) for metric, own in frame.groupby("metric", sort=False)]
    return "\n".join(("## The same runs twice\n", *parts, "Intervals (95%) and p: t-test over calibration seeds, each "
                      "of them the mean of its two pairs; not corrected for the number of arms.\n\n"
                      f"Made by `{command}`.\n"))


def _section(frame: pd.DataFrame, table: Table, metric: str) -> str:
    scale, digits, unit = UNITS[metric]
    control, keys, seeds = table.controls[0], named_by(table), frame["runs"].max()
    moved = scale * float(np.sqrt(np.average(frame["moved"] ** 2, weights=frame["runs"])))

    def signed(value: float) -> str:
        return f"{scale * value:+.{digits}f}"

    lines = []
    for row in frame.to_dict("records"):
        interval = f"{signed(row['both'])} [{signed(row['low'])}, {signed(row['high'])}]"
        compared = [signed(row["first"]), signed(row["again"]), interval, f"{row['p']:.3f}"]
        lines.append([*(table.label(key, row[key]) for key in keys), table.label("arm", row["arm"]),
                      f"{scale * row['moved']:.{digits}f}", *(["–"] * 4 if row["arm"] == control else compared)])
    heads = [*keys, "arm", "a run moves by", f"vs {table.label('arm', control)}, first", "again", "both", "p"]
    return (f"### {metric}, {unit}\n\nOf {frame['runs'].sum()} pairs of runs with the same calibration seed: the last "
            f"bits of sums alone move a run by {moved:.{digits}f} {unit} (standard deviation), a difference of two "
            f"runs by {moved * 2 ** 0.5:.{digits}f}, and its mean over {seeds} seeds by "
            f"{moved * (2 / seeds) ** 0.5:.{digits}f}.\n\n{pipe(heads, lines, len(keys) + 1)}\n")


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
