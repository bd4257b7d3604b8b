"""The identity of a stage: a hash of what decides its result, and of nothing else.

That is the slice of the resolved configuration that the stage reads, the content of its inputs (but for a benchmark's
data: its documents' hash is in the record, and compared where runs are), the package's own source for the stage, and
the versions of the libraries that compute. Where things are stored, how they are tracked
and how often they are shown does not enter.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from typing import Any

from qig.config.digest import digest
from qig.config.schema import Config, Evaluation
from qig.config.schema.evaluation import APART
from qig.config.sources import EVALUATION_CODE, code_version, folder_content, quantization_code
from qig.config.validation import needs_calibration
from qig.evaluation.corpora import text_record
from qig.evaluation.index import names_in

COMPUTING = ("torch", "torchvision", "transformers", "tokenizers", "numpy", "pillow", "datasets")
BENCHMARKING = (*COMPUTING, "lmms-eval", "qwen-vl-utils")
PLACES = ("path", "image_folder", "follow_links")
"""Options of calibration sets that say where the data lies, and how far it may; its content has a hash."""


@cache
def versions(packages: tuple[str, ...]) -> dict[str, str]:
    return {name: version(name) for name in packages}


def model_identity(config: Config, checkpoint_hash: str, device: str) -> dict[str, Any]:
    """What decides the 16-bit model in memory; threads enter where they decide the order of sums: on the processor."""
    return {
        "checkpoint": checkpoint_hash,
        "dtype": config.model.dtype,
        "outliers": asdict(config.model.outliers) if config.model.outliers.sigma else None,
        "device": device,
        "threads": config.threads if device == "cpu" else None,
    }


def quantized_key(config: Config, model: dict[str, Any], calibration: str | None) -> str | None:
    """Identity of the quantized model; ``None`` in 16 bits.

    ``calibration``: hash of the calibration set's content; ``None`` where it is not known, so that its place must do.
    """
    if config.quant.weights is None:
        return None
    data_driven = needs_calibration(config)
    methods = {"equalization": config.equalization.kind, "rounding": config.rounding.kind}
    if data_driven:
        methods["sensitivity"] = config.sensitivity.kind
    return digest(
        {
            "model": model,
            "quant": {**asdict(config.quant), "name": None},
            "equalization": config.equalization,
            "rounding": config.rounding,
            "sensitivity": config.sensitivity if data_driven else None,
            "calibration": _calibration(config, calibration) if data_driven else None,
            "seed": config.seed if data_driven else None,
            "code": quantization_code(**methods),
            "versions": versions(COMPUTING),
        }
    )


def gradients_key(config: Config, model: dict[str, Any], calibration: str) -> str:
    """Identity of the 16-bit model's gradients on the calibration set: the same for all grids and methods."""
    return digest(
        {
            "model": model,
            "calibration": _calibration(config, calibration),
            "seed": config.seed,
            "code": quantization_code(),
            "versions": versions(COMPUTING),
        }
    )


def _calibration(config: Config, content: str | None) -> list[Any]:
    options = asdict(config.calibration)
    return [options if content is None else _anywhere(options), content]


def _anywhere(options: dict[str, Any]) -> dict[str, Any]:
    """Without :data:`PLACES`, those of sets inside the set (which may be called so) included."""
    kept = {key: value for key, value in options.items() if key not in PLACES or isinstance(value, dict)}
    return {key: _anywhere(value) if isinstance(value, dict) else value for key, value in kept.items()}


def evaluation_key(config: Config, model: dict[str, Any], quantized: str | None) -> str:
    """Identity of the benchmark's samples; nothing that changes no answer enters."""
    text = config.evaluation.running_text
    apart = {**dict.fromkeys(APART), "include_path": _users_tasks(config.evaluation)}
    apart["text"] = None if text is None else text_record(text)
    return digest(
        {
            "model": quantized or model,
            "evaluation": {**asdict(config.evaluation), **apart},
            "code": code_version(EVALUATION_CODE),
            "versions": versions(BENCHMARKING),
        }
    )


def _users_tasks(evaluation: Evaluation) -> str | None:
    """Hash of the folder that defines one of the tasks; where it is decides nothing."""
    folder = evaluation.include_path
    asked = folder is not None and not names_in(folder).isdisjoint(evaluation.tasks)
    return folder_content(folder) if asked else None


def run_key(config: Config, quantized: str | None, evaluation: str) -> str:
    """Identity of the run record: its stages and the names that it goes by in tables."""
    names = {"method": config.method, "model": config.model.name, "quant": config.quant.name}
    return digest({**names, "stages": [quantized, evaluation]})
