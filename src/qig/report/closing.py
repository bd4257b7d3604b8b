"""The closing table of a run or a sweep: printed, written beside the jobs, and silent about nothing that failed."""

from __future__ import annotations

import csv
import json
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path

from qig.errors import QigError, StoreError
from qig.report.comparison import Compared, by_type, comparison
from qig.report.figures.collect import worth_a_picture, write_run_figure
from qig.report.jobs import FAILED, Job, compared
from qig.report.records import Run
from qig.report.render import terminal, write
from qig.store.files import write_text


def close(folder: Path, jobs: Sequence[Job], *, figures: int = 1, show: Callable[[str], None] = print) -> list[str]:
    """Show the closing table of ``jobs`` and write it, with at most ``figures`` figures, into ``folder``.

    A run that cannot be read, or cannot be compared, is named and does not stop the rest. Returns what was named.
    """
    rows, problems = compared(jobs)
    written = [_write_jobs(jobs, folder)]
    try:
        if rows:
            written += _tables(rows, folder, problems, show)
            written += _figures([row.run for row in rows], folder, figures, problems)
    finally:
        # Whatever becomes of the tables, failed jobs are named.
        show(summary(jobs, problems))
    if rows:
        show(f"Written to {folder}: {', '.join(path.name for path in written)}")
    return problems


def keep_records(jobs: Sequence[Job], folder: Path) -> list[Path]:
    """Copy the record of every run that ``jobs`` compares into ``folder``, as METHOD-RUN.json.

    Raises:
        StoreError: a run cannot be read.
    """
    rows, problems = compared(jobs)
    if problems:
        raise StoreError("; ".join(problems))
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for run in (row.run for row in rows):
        written.append(folder / f"{run.method}-{run.id[:10]}.json")
        write_text(written[-1], json.dumps(run.record, indent=1) + "\n")
    return written


def _tables(rows: Sequence[Compared], folder: Path, problems: list[str], show: Callable[[str], None]) -> list[Path]:
    try:
        frame, types = comparison(rows), by_type([row.run for row in rows])
        show(terminal(frame, types))
        return write(frame, types, folder)
    except (QigError, OSError) as error:
        problems.append(f"no comparison: {error}")
        return []


def _figures(runs: Sequence[Run], folder: Path, most: int, problems: list[str]) -> list[Path]:
    written: list[Path] = []
    for run in worth_a_picture(runs, most):
        try:
            written += write_run_figure("token_sensitivity", run, folder)
        except (QigError, OSError) as error:
            problems.append(f"no figure of run {run.id}: {error}")
    return written


def summary(jobs: Sequence[Job], problems: Sequence[str]) -> str:
    """``4 jobs: 2 done, 1 cached, 1 failed``, then a line for each failure and problem."""
    count = Counter(job.outcome for job in jobs)
    lines = [f"{len(jobs)} job{'s' if len(jobs) != 1 else ''}: "
             + ", ".join(f"{count[outcome]} {outcome}" for outcome in ("done", "cached", FAILED))]
    for job in jobs:
        if job.error is not None:
            overrides = f" ({' '.join(job.overrides)})" if job.overrides else ""
            lines.append(f"  failed: {job.folder.name}{overrides}: {job.error}")
    return "\n".join([*lines, *(f"  note: {problem}" for problem in problems)])


def _write_jobs(jobs: Sequence[Job], folder: Path) -> Path:
    """jobs.csv: a line a job, how it ended, its run, its words, and why it failed."""
    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("job", "outcome", "run", "overrides", "error"))
    for job in jobs:
        table.writerow((job.folder.name, job.outcome, job.run or "", shlex.join(job.overrides), job.error or ""))
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "jobs.csv", text.getvalue())
    return folder / "jobs.csv"
