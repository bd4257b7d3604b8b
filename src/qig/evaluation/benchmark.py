"""Accuracy and likelihood of a model in memory on benchmarks, sample by sample."""

from __future__ import annotations

from argparse import Namespace
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from qig.config.digest import digest
from qig.config.schema import TextEvaluation

from .containment import contained
from .corpora import text_record
from .datasets import check_datasets
from .journal import Journal
from .ranks import Ranks
from .records import documents_hash, picture_hashes, sample_records, target_text
from .registry import check_tasks, load_tasks
from .scores import check_scored, main_metric, metric_values
from .summary import summarize
from .texts import text_samples
from .unparsed import unparsed


@dataclass(frozen=True)
class EvaluationResult:
    """``samples``: a record per question with task, sample, cluster, type, target, answer, metric, score, sub_scores,
    nll, empty, unparsed.

    ``score`` is the task's main metric (usually 0 or 1), ``sub_scores`` its others, ``nll`` the negative
    log-likelihood of ``target`` in nats, or None where it was not asked for or there is no target. ``metrics`` are
    those of :func:`~qig.evaluation.summary.summarize`. ``versions``: of lmms-eval and of each task. ``protocol``: how
    the questions reached the model. ``documents``: of each task a hash of its documents, pictures left out, and of the
    running text a hash of that and its window.
    """

    samples: list[dict[str, Any]]
    metrics: dict[str, dict[str, Any]]
    versions: dict[str, str]
    protocol: dict[str, Any]
    documents: dict[str, str]


def evaluate(
    model,
    processor,
    *,
    tasks: list[str],
    include_path: str | None = None,
    text: TextEvaluation | None = None,
    protocol: str,
    limit: int | None,
    batch_size: int,
    seed: int,
    nll: bool,
    folder: Path | None = None,
    identity: str = "",
) -> EvaluationResult:
    """Run lmms-eval's tasks, and running text, on a Hugging Face model in memory, which is left as it is.

    ``include_path``: a folder with more tasks in lmms-eval's form.
    ``limit`` keeps the first questions of each task, and the first passages of the text. ``seed`` sets Python's,
    numpy's and torch's generators, which some tasks use to parse unclear answers. Equal arguments give equal answers
    and equal bits, also where several processes (``torchrun``, ``accelerate launch``) call this together: each answers
    its share of the batches, and all return the same result, which one of them should write. With a ``folder`` finished
    batches are kept there, and an interrupted evaluation of the same ``identity`` goes on from them;
    :func:`~qig.evaluation.journal.discard` removes them.

    Raises:
        EvaluationError: an unknown task or protocol.
        DataError: a dataset that cannot be had.
        NonFiniteError: the model's scores or likelihoods are not numbers; names the document.
    """
    ranks = Ranks.of_environment()
    journal = Journal(folder, ranks.rank, identity)
    result = EvaluationResult([], {}, {}, {}, {})
    if tasks or text is None:
        check_tasks(tasks, include_path)
        check_datasets(tasks, include_path)
        result = _answered(
            model,
            processor,
            tasks,
            ranks,
            journal,
            include_path=include_path,
            protocol=protocol,
            limit=limit,
            batch_size=batch_size,
            seed=seed,
            nll=nll,
        )
    if text is None:
        return result
    passages = text_samples(model, processor, text, limit, batch_size, ranks, journal)
    samples = [*result.samples, *passages]
    asked = {**result.protocol, "text": text_record(text)}
    documents = {**result.documents, text.corpus: digest(asked["text"])}
    return EvaluationResult(samples, summarize(samples), result.versions, asked, documents)


def _answered(
    model,
    processor,
    tasks: list[str],
    ranks: Ranks,
    journal: Journal,
    *,
    include_path: str | None,
    protocol: str,
    limit: int | None,
    batch_size: int,
    seed: int,
    nll: bool,
) -> EvaluationResult:
    """lmms-eval's part of :func:`evaluate`."""
    with contained():
        from lmms_eval import evaluator

        from .chat_model import Answered, QigChatModel
    lm = QigChatModel(
        model=model, processor=processor, batch_size=batch_size, protocol=protocol, ranks=ranks, journal=journal
    )
    output = None
    with contained(), TemporaryDirectory() as folder, redirect_stdout(StringIO()), ranks.each_alone():
        manager, loaded = ranks.in_turn(lambda: load_tasks(tasks, lm.protocol, include_path))
        for name, task in loaded.items():
            check_scored(name, task, limit)
        if nll:
            lm.right_answer = lambda task, doc_id: target_text(loaded[task], loaded[task].eval_docs_no_media[doc_id])
        with suppress(Answered):
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

    def judged() -> tuple[list[dict[str, Any]], dict[str, str], dict[str, str]]:
        samples = [record for name, task in loaded.items() for record in _records(name, task, output["samples"][name])]
        documents = {name: documents_hash(_documents(task, output["samples"][name])) for name, task in loaded.items()}
        return samples, {name: str(output["versions"][name]) for name in loaded}, documents

    samples, versions, documents = ranks.once(judged)
    if nll:
        with contained():
            _add_nll(lm, loaded, samples)
    versions = {"lmms-eval": version("lmms-eval"), **versions}
    asked = {"name": protocol, **asdict(lm.protocol)}
    return EvaluationResult(samples, summarize(samples), versions, asked, documents)


def _documents(task, logged: list[dict]) -> list[dict]:
    return [task.eval_docs_no_media[doc_id] for doc_id in sorted({sample["doc_id"] for sample in logged})]


def _records(name: str, task, logged: list[dict]) -> list[dict[str, Any]]:
    # A task with several answer filters logs every document once for each; the first filter counts.
    logged = list({sample["doc_id"]: sample for sample in reversed(logged)}.values())[::-1]
    values = metric_values(name, [metric["metric"] for metric in task.config.metric_list or []], logged)
    main = main_metric(name, values)
    doc_ids = [sample["doc_id"] for sample in logged]
    docs = [task.eval_docs_no_media[doc_id] for doc_id in doc_ids]
    records = sample_records(name, docs, doc_ids, picture_hashes(task.eval_docs, doc_ids))
    for index, (record, doc, sample) in enumerate(zip(records, docs, logged, strict=True)):
        answer = str(sample["resps"][0][0])
        others = {metric: scores[index] for metric, scores in values.items() if metric != main}
        record |= {
            "target": target_text(task, doc),
            "answer": answer,
            "metric": main,
            "score": values[main][index],
            "sub_scores": {metric: score for metric, score in others.items() if score is not None},
            "nll": None,
            "empty": not answer.strip(),
            "unparsed": unparsed(name, doc, str(sample["filtered_resps"][0])),
        }
    return records


def _add_nll(lm, loaded: dict[str, Any], samples: list[dict[str, Any]]) -> None:
    """Fill in ``nll`` of the samples that have a target; they are in the order of the tasks' requests.

    What the model has not said itself is put into its mouth.
    """
    from tqdm import tqdm

    from .chat_model import document_names, documents_named, longest_first
    from .likelihood import answer_nll

    requests = [instance.args for task in loaded.values() for instance in task.instances]
    pairs = []
    for request, sample in zip(requests, samples, strict=True):
        *_, doc_id, task, _split = request
        sample["nll"] = lm.likelihoods.get((task, doc_id))
        if sample["target"] and sample["nll"] is None:
            pairs.append((request, sample))
    pairs.sort(key=lambda pair: longest_first(pair[0]))
    batches = [pairs[start : start + lm.batch_size] for start in range(0, len(pairs), lm.batch_size)]
    with tqdm(total=len(batches), desc="likelihoods", unit="batch", disable=not lm.ranks.is_main or None) as progress:

        def of_batch(_number: int, batch: list[tuple]) -> list[float]:
            conversations = [lm.conversation(request) for request, _ in batch]
            targets = [sample["target"] for _, sample in batch]
            with documents_named([request for request, _ in batch]):
                return answer_nll(lm.model, lm.processor, conversations, targets, lm.protocol)

        def names(batch: list[tuple]) -> list:
            return document_names([request for request, _ in batch])

        kept = lm.journal.kept("likelihoods", names, of_batch)

        def work(numbered: tuple[int, list[tuple]]) -> list[float]:
            done = kept(numbered)
            progress.update(lm.ranks.size)
            return done

        for batch, values in zip(batches, lm.ranks.spread(list(enumerate(batches)), work), strict=True):
            for (_, sample), value in zip(batch, values, strict=True):
                sample["nll"] = value
