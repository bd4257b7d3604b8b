"""Samples of several runs, brought into one order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qig.report.comparison import check_paired
from qig.report.records import Run


def aligned(runs: Sequence[Run], field: str, task: str | None = None) -> tuple[np.ndarray, list[str], list[str]]:
    """``field`` of every sample that has it in all runs ``[runs, samples]``; the samples' images; their benchmarks.

    ``task``: of this one only, else of all that are ``combined``. EvaluationError when the runs were not evaluated on
    the same samples.
    """
    first = runs[0]
    for other in runs[1:]:
        check_paired(first, other)
    every = [run.by_task for run in runs]
    columns, clusters, strata = [], [], []
    chosen = first.combined if task is None else {task: every[0].get(task, {})}
    for name, samples in chosen.items():
        for sample, line in samples.items():
            values = [one[name][sample][field] for one in every]
            if None not in values:
                columns.append(values)
                clusters.append(str(line["cluster"]))
                strata.append(name)
    return np.array(columns, dtype=np.float64).reshape(len(columns), len(runs)).T, clusters, strata
