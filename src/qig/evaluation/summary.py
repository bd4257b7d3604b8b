"""A benchmark's samples in a few numbers, and whether they can be trusted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from qig.config.schema import Evaluation
from qig.errors import EvaluationError

_EXAMPLES_SHOWN = 3


def summarize(samples: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By task: ``metric`` (the main one), ``accuracy`` (its mean), ``sub_scores`` (the means of the others, each over
    the samples it speaks of), ``by_type`` (accuracy by type of question), ``nll`` (mean), ``empty_share``,
    ``unparsed_share`` (both 0 to 1; the latter None where it cannot be known) and ``n``."""
    by_task: dict[str, list[dict]] = defaultdict(list)
    for sample in samples:
        by_task[sample["task"]].append(sample)
    return {task: _summary(rows) for task, rows in by_task.items()}


def check_answers(samples: Sequence[dict[str, Any]], evaluation: Evaluation) -> None:
    """Refuse a task with too many answers that are empty, or that its parser could not read.

    The answers are kept by then: a larger share costs no new ones.

    Raises:
        EvaluationError: says how many, of which task, and names a few.
    """
    for task in dict.fromkeys(sample["task"] for sample in samples):
        rows = [sample for sample in samples if sample["task"] == task]
        for key, said, share, name in (
            ("empty", "are empty", evaluation.max_empty_share, "max_empty_share"),
            ("unparsed", "name no option", evaluation.max_unparsed_share, "max_unparsed_share"),
        ):
            found = [row["sample"] for row in rows if row[key]]
            if len(found) > share * len(rows):
                raise EvaluationError(
                    f"{len(found)} of {len(rows)} answers to {task} {said}, more than the share of {share:g} that is "
                    f"allowed (evaluation.{name}; answers are kept: with a larger one the same command asks no more "
                    f"of them); for example those to {', '.join(found[:_EXAMPLES_SHOWN])}"
                )


def _summary(rows: list[dict]) -> dict[str, Any]:
    by_type: dict[str, list[float]] = defaultdict(list)
    sub_scores: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        by_type[row["type"]].append(row["score"])
        for metric, score in row["sub_scores"].items():
            sub_scores[metric].append(score)
    nll = [row["nll"] for row in rows if row["nll"] is not None]
    unparsed = [row["unparsed"] for row in rows if row["unparsed"] is not None]
    return {
        "metric": rows[0]["metric"],
        "accuracy": fmean(row["score"] for row in rows),
        "sub_scores": {metric: fmean(scores) for metric, scores in sorted(sub_scores.items())},
        "by_type": {kind: fmean(scores) for kind, scores in sorted(by_type.items()) if kind},
        "nll": fmean(nll) if nll else None,
        "empty_share": fmean(row["empty"] for row in rows),
        "unparsed_share": fmean(unparsed) if unparsed else None,
        "n": len(rows),
    }
