"""One number a sample from what a task's metrics log about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from qig.errors import EvaluationError


@dataclass(frozen=True)
class MainMetric:
    """The logged metric ``name`` and how its value becomes a score; None where it does not."""

    name: str
    reduce: Callable[[Any], float | None]


def number(value: Any) -> float | None:
    """A number as it is, or the ``score`` of a record."""
    value = value.get("score") if isinstance(value, dict) else value
    return float(value) if isinstance(value, Real) else None


def _same_option(value: dict) -> float:
    return float(value["pred"].strip().lower() == value["answer"].strip().lower())


def _mmmu(value: dict) -> float:
    from lmms_eval.tasks.mmmu.utils import evaluate_mmmu

    return float(evaluate_mmmu([value])[1]["acc"])


MAIN_METRICS = {
    "mmmu_val": MainMetric("mmmu_acc", _mmmu),
    "seedbench": MainMetric("seed_all", _same_option),
}
"""Tasks that log a record to be judged later; all others log a number, and their first such metric counts."""


def main_scores(task: str, metrics: Sequence[str], logged: Sequence[dict]) -> list[float]:
    """The score of each logged sample by the task's main metric, higher is better.

    ``metrics`` are the names the task declares, in its order. One metric serves all samples.

    Raises:
        EvaluationError: no metric gives a number for every sample.
    """
    candidates = [MAIN_METRICS[task]] if task in MAIN_METRICS else [MainMetric(name, number) for name in metrics]
    for metric in candidates:
        scores = [metric.reduce(sample[metric.name]) if metric.name in sample else None for sample in logged]
        if None not in scores:
            return scores
    raise EvaluationError(
        f"task {task!r} logs no number for every sample under {[metric.name for metric in candidates]}; "
        "declare its main metric in qig.evaluation.scores.MAIN_METRICS"
    )
