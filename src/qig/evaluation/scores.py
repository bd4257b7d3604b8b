"""Numbers a sample from what a task's metrics log about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from qig.errors import EvaluationError


@dataclass(frozen=True)
class Judged:
    """A task that logs records to be judged later: its main metric, and how a record becomes a number."""

    main: str
    judge: Callable[[Any], float]


def number(value: Any) -> float | None:
    """A number as it is, or the ``score`` of a record; None where there is none."""
    value = value.get("score") if isinstance(value, dict) else value
    return float(value) if isinstance(value, Real) else None


def _same_option(value: dict) -> float:
    return float(value["pred"].strip().lower() == value["answer"].strip().lower())


def _mmmu(value: dict) -> float:
    from lmms_eval.tasks.mmmu.utils import evaluate_mmmu

    return float(evaluate_mmmu([value])[1]["acc"])


JUDGED = {"mmmu_val": Judged("mmmu_acc", _mmmu), "seedbench": Judged("seed_all", _same_option)}
"""All other tasks log numbers, and their first metric that has one for every sample counts."""


def metric_values(task: str, metrics: Sequence[str], logged: Sequence[dict]) -> dict[str, list[float | None]]:
    """For each of the task's ``metrics`` a number a logged sample, or None where it does not speak of the sample."""
    judge = JUDGED[task].judge if task in JUDGED else number
    return {name: [judge(sample[name]) if name in sample else None for sample in logged] for name in metrics}


def main_metric(task: str, values: Mapping[str, Sequence[float | None]]) -> str:
    """The metric that counts, higher is better; it has a number for every sample.

    Raises:
        EvaluationError: there is none.
    """
    candidates = [JUDGED[task].main] if task in JUDGED else list(values)
    for name in candidates:
        if name in values and None not in values[name]:
            return name
    raise EvaluationError(
        f"task {task!r} logs no number for every sample under {candidates}; "
        "declare its main metric in qig.evaluation.scores.JUDGED"
    )
