"""Evaluation throughput: answers and likelihoods a second, in 16 bits and with fake-quantized layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from tqdm import tqdm

from qig.bench.work import configured
from qig.blockwise.timing import worked
from qig.calibrate import quantize
from qig.evaluation.parallel import evaluate_into
from qig.models.loading import LoadedModel, load
from qig.quantized import load_quantized


def throughput(
    name: str, settings: Sequence[str], questions: int, repetitions: int, device: torch.device
) -> list[dict]:
    """Rows of seconds of work for the same questions, all settings in turn; rounding to nearest, as cost has it."""
    few = (f"model={name}", f"evaluation.limit={questions}", "evaluation.max_empty_share=1", "method=rtn")
    configs = {setting: configured(f"quant={setting}", *few) for setting in settings}
    with TemporaryDirectory() as folder:
        models = {setting: _quantized(config, device, Path(folder) / setting) for setting, config in configs.items()}
        seconds: dict[str, list[float]] = {setting: [] for setting in settings}
        turns = [setting for _ in range(repetitions + 1) for setting in settings]  # the first warms up
        for number, setting in enumerate(tqdm(turns, desc="evaluations", unit="evaluation", disable=None)):
            target = Path(folder) / f"turn-{number}"
            target.mkdir()
            start = worked(device)
            evaluate_into(target, models[setting], replace(configs[setting].evaluation, processes=1))
            seconds[setting].append(worked(device) - start)
    first = median(seconds[settings[0]][1:])
    return [
        {
            "model": name,
            "setting": setting,
            "questions": questions,
            "repetitions": repetitions,
            "seconds": median(found[1:]),
            "least": min(found[1:]),
            "most": max(found[1:]),
            "questions_a_second": questions / median(found[1:]),
            "to_first": median(found[1:]) / first,
        }
        for setting, found in seconds.items()
    ]


def _quantized(config, device: torch.device, folder: Path) -> LoadedModel:
    if config.quant.weights is None:
        return load(config.model, device)
    folder.mkdir()
    quantize(config, device, folder)
    return load_quantized(config.model, config.quant, folder, device)
