"""Alone, or as one of several processes: evaluates, says what this process did, and then fails with all the others."""

from __future__ import annotations

import json
import os
from pathlib import Path
from unittest.mock import patch

import torch

from qig.config.schema import Model, Outliers
from qig.errors import EvaluationError
from qig.evaluation import benchmark, chat_model, registry
from qig.evaluation.benchmark import evaluate
from qig.evaluation.ranks import Ranks
from qig.models.loading import load


def main(tasks: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    registry.TASKS_FOLDER = tasks
    loaded = load(Model("tiny", "embedded:tiny_internvl", "float32", Outliers(0.0, 0)), torch.device("cpu"))
    options = {"tasks": ["qig_digitgrid", "qig_drawn"], "protocol": "plain", "limit": 22, "batch_size": 4, "seed": 3}
    options["nll"] = True

    batches = []
    generate = chat_model.generate_answers

    def counted(*arguments):
        batches.append(len(arguments[2]))
        return generate(*arguments)

    chat_model.generate_answers = counted
    result = evaluate(loaded.model, loaded.processor, **options)
    said = {"samples": result.samples, "metrics": result.metrics, "batches": list(batches)}
    try:
        with patch.object(benchmark, "metric_values", lambda *_: {}):  # only the first process judges
            evaluate(loaded.model, loaded.processor, **options)
        said["error"] = ""
    except EvaluationError as raised:
        said["error"] = str(raised)
    (folder / f"{os.environ.get('RANK', 'alone')}.json").write_text(json.dumps(said))
    Ranks.of_environment().leave()
