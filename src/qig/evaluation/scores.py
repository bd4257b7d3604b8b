"""Numbers a sample from what a task's metrics log about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from qig.errors import UnscoredError


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


ELSEWHERE = ("submission", "gpt", "llm_as_judge", "llmms_eval")
"""How the names of metrics begin that a server or a language model behind an API gives."""

PROBED = 64
"""To how many documents, at most, an empty answer is judged before a task is asked."""


def check_judged_here(task: str, metrics: Sequence[str]) -> None:
    """Refuse a task all of whose metrics are given elsewhere, before anything is loaded.

    Raises:
        UnscoredError: names them.
    """
    if metrics and task not in JUDGED and all(str(metric).startswith(ELSEWHERE) for metric in metrics):
        raise UnscoredError(
            f"task {task!r} has no score that could be had here: its metrics ({', '.join(metrics)}) come from a "
            "language model behind an API, or from the benchmark's own server; choose another task, or another member "
            "of its group"
        )


def check_scored(task: str, loaded: Any, limit: int | None) -> None:
    """Refuse, before a single answer is generated, a task without a number for every sample.

    An empty answer is judged for it, to the last document that is asked for and to some of all before it: which metrics
    speak of a document may go by its category, and categories stand together. Where a task's code does not take that,
    nothing is known yet.

    Args:
        loaded: the task as lmms-eval has it.

    Raises:
        UnscoredError: as :func:`main_metric`.
    """
    docs = loaded.eval_docs_no_media
    asked = len(docs) if limit is None else min(limit, len(docs))
    try:
        places = {*range(0, asked, 1 + asked // PROBED), asked - 1}
        logged = [loaded.process_results(docs[place], [""]) for place in sorted(places)]
        values = metric_values(task, [metric["metric"] for metric in loaded.config.metric_list or []], logged)
    except Exception:  # whatever a foreign task's code makes of an empty answer
        return
    main_metric(task, values)


def metric_values(task: str, metrics: Sequence[str], logged: Sequence[dict]) -> dict[str, list[float | None]]:
    """For each of the task's ``metrics`` a number a logged sample, or None where it does not speak of the sample."""
    judge = JUDGED[task].judge if task in JUDGED else number
    return {name: [judge(sample[name]) if name in sample else None for sample in logged] for name in metrics}


def main_metric(task: str, values: Mapping[str, Sequence[float | None]]) -> str:
    """The metric that counts, higher is better; it has a number for every sample.

    Raises:
        UnscoredError: there is none.
    """
    candidates = [JUDGED[task].main] if task in JUDGED else list(values)
    for name in candidates:
        if name in values and None not in values[name]:
            return name
    raise UnscoredError(
        f"task {task!r} logs no number for every sample under {candidates}; choose another task, or say in "
        "qig.evaluation.scores.JUDGED how its records become numbers"
    )
