"""The evaluation of a run as artefacts: one a task, shared with runs that ask other tasks, too, and one of them all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qig.config.schema import Config, Evaluation
from qig.devices import enough_memory
from qig.heap import give_back
from qig.store import find_damage, write_json, write_manifest

if TYPE_CHECKING:
    import torch


def parts(evaluation: Evaluation) -> list[Evaluation]:
    """The same evaluation of each task alone, and of the running text."""
    none = replace(evaluation.text, corpus=None)
    alone = [replace(evaluation, tasks=[task], text=none) for task in evaluation.tasks]
    return alone if evaluation.running_text is None else [*alone, replace(evaluation, tasks=[])]


def evaluate(config: Config, device: torch.device, quantized: Path | None, folder: Path) -> None:
    """Benchmark the 16-bit model, or the one that the quantized stage's folder holds.

    Results get their checksums before the journal goes: killed at any moment, an evaluation loses one batch at most.
    """
    from qig.evaluation.journal import FOLDER, discard

    if find_damage(folder) is not None:
        _answered(config, device, quantized, folder)
        write_manifest(folder, without=FOLDER)
    discard(folder)


def _answered(config: Config, device: torch.device, quantized: Path | None, folder: Path) -> None:
    from qig.blockwise.timing import PeakMemory, Stopwatch, larger
    from qig.determinism import prepare
    from qig.evaluation.journal import spent
    from qig.evaluation.parallel import RESULT, Job, evaluate_into, launch
    from qig.evaluation.spread import accelerators, placed
    from qig.quantized import load_quantized

    watch, evaluation, elsewhere = Stopwatch(device), config.evaluation, {}
    watch.add("evaluation", spent(folder))
    devices = accelerators(device.type) if evaluation.sharded else [device]
    with ExitStack() as context:
        context.enter_context(enough_memory(device, _remedies(evaluation, device)))
        memories = [context.enter_context(PeakMemory(each)) for each in devices]
        context.enter_context(watch("evaluation"))
        if evaluation.processes > 1:
            quant = None if quantized is None else config.quant
            job = Job(config.model, quant, quantized, evaluation, str(device), config.threads, folder)
            give_back()  # the first of them works where this one did
            elsewhere = launch(job, evaluation.processes)
        else:
            prepare(evaluation.seed, config.threads)
            load = partial(load_quantized, config.model, config.quant, quantized)
            evaluate_into(folder, placed(load, device, evaluation.sharded), evaluation)
    found = json.loads((folder / RESULT).read_text())
    found["timings"] = watch.seconds
    found["memory"] = larger(*(memory.so_far() for memory in memories), elsewhere)
    write_json(folder / RESULT, found)


def _remedies(evaluation: Evaluation, device: torch.device) -> str:
    import torch

    fewer = f"evaluation.batch_size={max(1, evaluation.batch_size // 2)} (answers anew: padding is another)"
    several = device.type != "cpu" and not evaluation.sharded and torch.accelerator.device_count() > 1
    return f"Try {fewer}{', or evaluation.sharded=true (the model over all accelerators)' if several else ''}"


def join(folders: Sequence[Path], folder: Path) -> None:
    """Leave in ``folder`` what the evaluations of parts found, in their order; ``parts`` are their keys."""
    from qig.blockwise.timing import larger
    from qig.evaluation.parallel import RESULT, SAMPLES
    from qig.store.files import write_text

    found = [json.loads((part / RESULT).read_text()) for part in folders]
    write_text(folder / SAMPLES, "".join((part / SAMPLES).read_text() for part in folders))
    result: dict[str, Any] = {"parts": [part.name for part in folders]}
    for name in ("metrics", "versions", "protocol", "documents"):
        result[name] = {key: value for one in found for key, value in one[name].items()}
    without = {name for one in found for name in one["without_deterministic_form"]}
    timings = sum((Counter(one["timings"]) for one in found), Counter())
    result |= {"without_deterministic_form": sorted(without), "timings": timings}
    write_json(folder / RESULT, {**result, "memory": larger(*(one["memory"] for one in found))})
