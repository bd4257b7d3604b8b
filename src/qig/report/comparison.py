"""The comparison of finished runs with their baselines, as raw numbers: every difference paired by sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qig.errors import EvaluationError
from qig.report.differing import differing
from qig.report.records import Run, limited, nouns

if TYPE_CHECKING:
    import pandas as pd

BASELINES = ("16bit", "rtn")
NAN3 = (math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Compared:
    """A run beside the baselines of its own model, setting, seed and evaluation; None where there is none."""

    run: Run
    sixteen_bit: Run | None = None
    rtn: Run | None = None


def comparison(rows: Sequence[Compared]) -> pd.DataFrame:
    """One row a run, fractions of 1, nats an answer, seconds, bytes; NaN where a number does not exist.

    Columns: ``method, model, setting, model.outliers.sigma``; the configuration keys that differ (dotted, also listed
    in ``.attrs["config"]``); ``accuracy`` and, with several tasks, ``accuracy.<task>`` (``.attrs["tasks"]``);
    ``vs_16bit``, ``vs_rtn`` (paired differences of accuracy, with McNemar's exact ``_p``, of a single task); ``nll``,
    ``nll_vs_16bit``, ``nll_vs_rtn``; all of these with ``_low`` and ``_high``; then sample count, costs and the ids of
    the runs. Over several tasks an accuracy, NLL or difference is the mean of the tasks' values (``Run.combined``).
    ``calibration_seconds`` goes from the calibration samples to the quantized model. ``.attrs["nouns"]`` says what
    samples and their clusters are, ``.attrs["limited"]`` which limit ended the evaluation.
    Raises EvaluationError when a run and its baseline were not evaluated on the same samples.
    """
    import pandas as pd

    columns = differing([row.run for row in rows])
    tasks = list(dict.fromkeys(task for row in rows for task in row.run.by_task))
    table = []
    for index, row in enumerate(rows):
        cells = identity(row.run) | {key: values[index] for key, values in columns.items()}
        table.append(cells | _scores(row, tasks) | _costs(row))
    frame = pd.DataFrame(table)
    runs = [row.run for row in rows]
    frame.attrs = {"config": list(columns), "tasks": tasks, "nouns": nouns(runs), "limited": limited(runs)}
    return frame


def by_type(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a run, task and question type: ``n``, ``accuracy``, ``accuracy_low``, ``accuracy_high`` (95%).

    Of a task whose questions have no types there is none.
    """
    import pandas as pd

    columns = differing(runs)
    table = []
    for index, run in enumerate(runs):
        cells = identity(run) | {key: values[index] for key, values in columns.items()}
        for task, samples in run.by_task.items():
            for kind in sorted({line["type"] for line in samples.values()} - {""}):
                chosen = {key: line for key, line in samples.items() if line["type"] == kind}
                accuracy = _triple("accuracy", _mean({task: chosen}, "score"))
                table.append(cells | {"task": task, "type": kind, "n": len(chosen)} | accuracy | {"run": run.id})
    own = ("task", "type", "n", *_triple("accuracy", NAN3), "run")
    frame = pd.DataFrame(table, columns=[*identity(runs[0]), *columns, *own])
    frame.attrs = {"config": list(columns)}
    return frame


def identity(run: Run) -> dict[str, Any]:
    """The cells that say which run a row is, but for the configuration keys that differ."""
    return {"method": run.method, "model": run.model, "setting": run.setting,
            "model.outliers.sigma": run.outlier_sigma}


def check_paired(run: Run, baseline: Run) -> None:
    """EvaluationError unless both runs were evaluated on the same (task, sample) pairs, and those said the same."""
    ours, theirs = ({(task, sample) for task, samples in one.by_task.items() for sample in samples}
                    for one in (run, baseline))
    if ours != theirs:
        only = [f"{len(extra)} only in {who.id}" + (f" (such as {min(extra, key=str)})" if extra else "")
                for extra, who in ((ours - theirs, run), (theirs - ours, baseline))]
        raise EvaluationError(f"runs {run.id} ({run.method}) and {baseline.id} ({baseline.method}) were evaluated on "
                              f"different samples: {only[0]}, {only[1]}; a paired comparison needs the same ones")
    changed = [task for task in run.by_task if run.documents.get(task) != baseline.documents.get(task)]
    if changed:
        raise EvaluationError(f"the data of {', '.join(changed)} changed between runs {run.id} ({run.method}) and "
                              f"{baseline.id} ({baseline.method}): same samples, other questions or answers; remove "
                              f"{baseline.evaluation_folder} or {run.evaluation_folder}, whichever is the older, and "
                              "run its command again")


def _scores(row: Compared, tasks: Sequence[str]) -> dict[str, Any]:
    samples, by_task = row.run.combined, row.run.by_task
    cells = _triple("accuracy", _mean(samples, "score"))
    if len(tasks) > 1:
        for task in tasks:
            one = {task: by_task[task]} if task in by_task else {}
            cells |= _triple(f"accuracy.{task}", _mean(one, "score"))
    cells |= _triple("nll", _mean(samples, "nll"))
    for name, baseline in zip(BASELINES, (row.sixteen_bit, row.rtn), strict=True):
        # A baseline's own row names it as its baseline; a difference of exactly zero would say nothing.
        if baseline is None or baseline.id == row.run.id:
            cells |= _triple(f"vs_{name}", NAN3) | {f"vs_{name}_p": math.nan} | _triple(f"nll_vs_{name}", NAN3)
            continue
        check_paired(row.run, baseline)
        other = baseline.by_task
        cells |= _triple(f"vs_{name}", _difference(samples, other, "score"))
        cells[f"vs_{name}_p"] = _mcnemar(samples, other)
        cells |= _triple(f"nll_vs_{name}", _difference(samples, other, "nll"))
    cells["samples"] = sum(len(lines) for lines in samples.values())
    return cells


def _costs(row: Compared) -> dict[str, Any]:
    record = row.run.record
    timings, memory, size = record["timings"], record["memory"], record["model_bytes"]
    quantized = row.run.quantized_folder is not None
    calibration = (timings.get("calibration") or 0.0) + (timings.get("quantization") or 0.0)
    return {
        "calibration_seconds": calibration if quantized else math.nan,
        "evaluation_seconds": _number(timings.get("evaluation")),
        "peak_host_bytes": _number(memory.get("peak_host_bytes")),
        "peak_device_bytes": _number(memory.get("peak_device_bytes")),
        "model_bytes": _number(size.get("quantized" if quantized else "sixteen_bit")),
        "sixteen_bit_bytes": _number(size.get("sixteen_bit")),
        "run": row.run.id,
        "sixteen_bit_run": row.sixteen_bit.id if row.sixteen_bit else None,
        "rtn_run": row.rtn.id if row.rtn else None,
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _triple(name: str, values: Sequence[float]) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _mean(tasks: Mapping[str, Mapping[str, Mapping]], field: str) -> tuple[float, float, float]:
    return _over_tasks({task: [(line[field], line["cluster"]) for line in samples.values() if line[field] is not None]
                        for task, samples in tasks.items()})


def _difference(ours: Mapping, theirs: Mapping, field: str) -> tuple[float, float, float]:
    def pairs(task: str) -> list[tuple[float, str]]:
        both = [(line, theirs[task][sample]) for sample, line in ours[task].items()]
        return [(a[field] - b[field], a["cluster"]) for a, b in both if a[field] is not None and b[field] is not None]

    return _over_tasks({task: pairs(task) for task in ours})


def _over_tasks(tasks: Mapping[str, Sequence[tuple[float, str]]]) -> tuple[float, float, float]:
    """Mean over tasks of the means of their values, each with its cluster, and the interval; NaN without values."""
    from qig.report.statistics import compare

    if not tasks or not all(tasks.values()):
        return NAN3
    values, clusters, strata = zip(*[(*pair, task) for task, pairs in tasks.items() for pair in pairs], strict=True)
    found = compare(values, clusters, strata)
    return found.mean, found.low, found.high


def _mcnemar(ours: Mapping, theirs: Mapping) -> float:
    """Exact p of a single task; NaN where a score is neither 0 nor 1 (VQA's partial credit), and over several tasks:
    all their answers together are another quantity than the mean of the tasks.
    """
    from qig.report.statistics.significance import mcnemar_exact

    pairs = [(line["score"], theirs[task][sample]["score"])
             for task, samples in ours.items() for sample, line in samples.items()]
    if len(ours) > 1 or any(score not in (0, 1) for pair in pairs for score in pair):
        return math.nan
    return mcnemar_exact([a for a, _ in pairs], [b for _, b in pairs])
