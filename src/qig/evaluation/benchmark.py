"""Accuracy and likelihood of a model in memory on benchmarks, sample by sample."""

from __future__ import annotations

from argparse import Namespace
from collections import defaultdict
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from io import StringIO
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from qig.errors import EvaluationError

from .containment import contained
from .records import sample_records, target_text
from .registry import check_tasks, load_tasks
from .scores import main_scores

_EXAMPLES_SHOWN = 3


@dataclass(frozen=True)
class EvaluationResult:
    """``samples``: a record per question with task, sample, cluster, type, target, answer, score, nll, empty.

    ``score`` is the task's main metric (usually 0 or 1), ``nll`` the negative log-likelihood of ``target`` in nats,
    or None where it was not asked for or there is no target. ``metrics``: per task ``accuracy`` (mean score),
    ``by_type`` (the same per question type), ``nll`` (mean), ``empty_share`` and ``n``. ``versions``: of lmms-eval
    and of each task.
    """

    samples: list[dict[str, Any]]
    metrics: dict[str, dict[str, Any]]
    versions: dict[str, str]


def evaluate(
    model,
    processor,
    *,
    tasks: list[str],
    limit: int | None,
    batch_size: int,
    seed: int,
    nll: bool,
    max_empty_share: float,
) -> EvaluationResult:
    """Run lmms-eval's tasks on a Hugging Face model in memory, which is left as it is.

    ``limit`` keeps the first questions of each task. ``seed`` sets Python's, numpy's and torch's generators, which
    some tasks use to parse unclear answers. Equal arguments give equal answers and equal bits.

    Raises:
        EvaluationError: an unknown task, a dataset that cannot be had, or more than ``max_empty_share`` (0 to 1) of
            a task's answers being empty.
    """
    check_tasks(tasks)
    with contained():
        from lmms_eval import evaluator

        from .chat_model import QigChatModel
    with contained(), TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        manager, loaded = load_tasks(tasks)
        lm = QigChatModel(model=model, processor=processor, batch_size=batch_size)
        output = evaluator.simple_evaluate(
            model=lm,
            tasks=list(loaded.values()),
            task_manager=manager,
            limit=limit,
            batch_size=batch_size,
            bootstrap_iters=0,
            log_samples=True,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
            process_docs_parallel=1,  # threads would share the generators in an order of their own
            # Submission files of some tasks would otherwise appear in the working directory.
            cli_args=Namespace(output_path=folder, process_with_media=False),
        )
    samples = []
    for name, task in loaded.items():
        records = _task_records(name, task, output["samples"][name])
        _check_empty(name, records, max_empty_share)
        samples += records
    if nll:
        _add_nll(lm, loaded, samples)
    versions = {name: str(output["versions"][name]) for name in loaded}
    return EvaluationResult(samples, summarize(samples), {"lmms-eval": version("lmms-eval"), **versions})


def summarize(samples: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The metrics of :class:`EvaluationResult` from its samples."""
    by_task: dict[str, list[dict]] = defaultdict(list)
    for sample in samples:
        by_task[sample["task"]].append(sample)
    return {task: _summary(rows) for task, rows in by_task.items()}


def _summary(rows: list[dict]) -> dict[str, Any]:
    by_type: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        by_type[row["type"]].append(row["score"])
    nll = [row["nll"] for row in rows if row["nll"] is not None]
    return {
        "accuracy": fmean(row["score"] for row in rows),
        "by_type": {kind: fmean(scores) for kind, scores in sorted(by_type.items()) if kind},
        "nll": fmean(nll) if nll else None,
        "empty_share": fmean(row["empty"] for row in rows),
        "n": len(rows),
    }


def _task_records(name: str, task, logged: list[dict]) -> list[dict[str, Any]]:
    # A task with several answer filters logs every document once for each; the first filter counts.
    logged = list({sample["doc_id"]: sample for sample in reversed(logged)}.values())[::-1]
    metrics = [metric["metric"] for metric in task.config.metric_list or []]
    scores = main_scores(name, metrics, logged)
    doc_ids = [sample["doc_id"] for sample in logged]
    docs = [task.eval_docs_no_media[doc_id] for doc_id in doc_ids]
    records = sample_records(name, docs, doc_ids)
    for record, doc, sample, score in zip(records, docs, logged, scores, strict=True):
        answer = str(sample["resps"][0][0])
        record |= {"target": target_text(task, doc), "answer": answer, "score": score, "nll": None}
        record["empty"] = not answer.strip()
    return records


def _check_empty(name: str, records: list[dict[str, Any]], max_share: float) -> None:
    empty = [record["sample"] for record in records if record["empty"]]
    if len(empty) > max_share * len(records):
        raise EvaluationError(
            f"{len(empty)} of {len(records)} answers to {name} are empty, more than the share of {max_share:g} that is "
            f"allowed (max_empty_share); for example those to {', '.join(empty[:_EXAMPLES_SHOWN])}"
        )


def _add_nll(lm, loaded: dict[str, Any], samples: list[dict[str, Any]]) -> None:
    """Fill in ``nll`` of the samples that have a target; they are in the order of the tasks' requests."""
    from tqdm import tqdm

    from .likelihood import answer_nll

    requests = [instance.args for task in loaded.values() for instance in task.instances]
    pairs = [pair for pair in zip(requests, samples, strict=True) if pair[1]["target"]]
    pairs.sort(key=lambda pair: -len(pair[0][0]))
    conversations = _Conversations(lm, [request for request, _ in pairs])
    targets = [sample["target"] for _, sample in pairs]
    with tqdm(total=len(pairs), desc="likelihoods", unit="question", disable=None) as progress:
        nll = answer_nll(lm.model, lm.processor, conversations, targets, lm.batch_size, on_batch=progress.update)
    for (_, sample), value in zip(pairs, nll, strict=True):
        sample["nll"] = value


class _Conversations(Sequence):
    """Conversations of requests, loaded one at a time: the images of a benchmark need not fit into memory."""

    def __init__(self, lm, requests: list[tuple]) -> None:
        self._lm, self._requests = lm, requests

    def __len__(self) -> int:
        return len(self._requests)

    def __getitem__(self, index: int):
        return self._lm.conversation(self._requests[index])
