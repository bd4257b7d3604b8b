"""Evaluation by several processes of one machine, each with the model on a device of its own."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qig.config.schema import Evaluation, Model, Quant
from qig.config.schema.evaluation import APART
from qig.errors import DataError, EvaluationError

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
SAMPLES, RESULT = "samples.jsonl", "evaluation.json"


@dataclass(frozen=True)
class Job:
    """A model to be evaluated.

    Attributes:
        model: the 16-bit model.
        quant: its integer grid, and ``quantized``: the folder of its quantized stage; both None in 16 bits.
        device: as the configuration names it; of several accelerators each process takes its own.
        threads: of each process; the last bits depend on it.
        folder: existing; gets ``samples.jsonl`` and ``evaluation.json``.
    """

    model: Model
    quant: Quant | None
    quantized: Path | None
    evaluation: Evaluation
    device: str
    threads: int
    folder: Path


def launch(job: Job, processes: int) -> dict[str, int | None]:
    """Run the job by as many processes; its folder then holds what a single process would have found.

    Returns the peak of memory of the process that took most.

    Raises:
        DataError: a process could not have a dataset.
        EvaluationError: a process failed otherwise; both say what it said.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from qig.blockwise.timing import larger

    settings = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="spawn",
    )
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        return larger(*elastic_launch(settings, _work)(job).values())
    except SignalException as error:
        stopped = error.sigval
    except ChildFailedError as error:
        said = error.get_first_failure()[1].message
        said = said["message"] if isinstance(said, dict) else said  # beside it: the traceback
        kind = DataError if said.startswith(f"{DataError.__name__}:") else EvaluationError
        raise kind(f"one of {processes} processes failed: {said}") from error
    finally:
        for number, handler in handlers.items():  # elastic leaves its own
            signal.signal(number, handler)
    signal.raise_signal(stopped)  # to whom it was meant for
    raise EvaluationError(f"{processes} processes were stopped by signal {stopped}")


def _work(job: Job) -> dict[str, int | None]:
    """One process's part, and its peak of memory. What it raises reaches the caller of :func:`launch` as a message."""
    from torch.distributed.elastic.multiprocessing.errors import record

    from qig.blockwise.timing import PeakMemory
    from qig.determinism import prepare
    from qig.environment import quiet
    from qig.quantized import load_quantized

    @record
    def recorded() -> dict[str, int | None]:
        quiet()
        prepare(job.evaluation.seed, job.threads)
        device = own_device(job.device)
        with PeakMemory(device) as memory:
            loaded = load_quantized(job.model, job.quant, job.quantized, device)
            evaluate_into(job.folder, loaded, job.evaluation)
        return memory.so_far()

    return recorded()


def evaluate_into(folder: Path, loaded, evaluation: Evaluation, identity: str = "") -> None:
    """Evaluate a loaded model; every process calls this, the first writes both files, and all leave their group.

    What an interrupted evaluation of the same ``identity`` left in the folder's journal is not done again; the journal
    stays, for the caller to discard when the results are safe.
    """
    from qig.determinism import noted

    from .benchmark import evaluate
    from .ranks import Ranks

    ranks = Ranks.of_environment()
    others = (*APART, "text")
    settings = {name: value for name, value in asdict(evaluation).items() if name not in others}
    try:
        with noted() as without_deterministic_form:
            place = {"text": evaluation.running_text, "folder": folder, "identity": identity}
            result = evaluate(loaded.model, loaded.processor, **place, **settings)
    finally:
        ranks.leave()
    if not ranks.is_main:
        return
    with (folder / SAMPLES).open("w") as stream:
        stream.writelines(json.dumps(sample) + "\n" for sample in result.samples)
    kept = {
        "metrics": result.metrics,
        "versions": result.versions,
        "protocol": result.protocol,
        "documents": result.documents,
        "without_deterministic_form": sorted(without_deterministic_form),
    }
    (folder / RESULT).write_text(json.dumps(kept, indent=1) + "\n")


def read_samples(folder: Path) -> list[dict[str, Any]]:
    """The records that :func:`evaluate_into` left, one a sample."""
    with (folder / SAMPLES).open() as stream:
        return [json.loads(line) for line in stream]


def own_device(configured: str):
    """The device of this process: where ``cuda`` (or another accelerator) is meant, the one with its local number."""
    import torch

    local = os.environ.get("LOCAL_RANK")
    return torch.device(
        configured if local is None or configured == "cpu" else f"{configured.partition(':')[0]}:{local}"
    )
