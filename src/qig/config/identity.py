"""The identity of a stage: a hash of what decides its result, and of nothing else.

That is the slice of the resolved configuration that the stage reads, the content of its inputs (but for a benchmark's
data: its documents' hash is in the record, and compared where runs are), the package's own source for the stage, and
the versions of the libraries that compute. Where things are stored, how they are tracked
and how often they are shown does not enter.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, is_dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from qig.config.schema import Config
from qig.config.validation import needs_calibration
from qig.data.python_docs import EVALUATION, content_hash

PACKAGE = Path(__file__).resolve().parents[1]
QUANTIZATION_CODE = (
    "blockwise", "calibrate.py", "data", "determinism.py", "equalization", "models/*.py", "quantization",
    "quantized.py", "rounding", "sensitivity",
)  # fmt: skip
# Of the models: what loads the 16-bit one.
EVALUATION_CODE = (
    "evaluation", "data/digitgrid", "data/python_docs.py", "determinism.py", "models/*.py", "quantized.py"
)  # fmt: skip
COMPUTING = ("torch", "torchvision", "transformers", "tokenizers", "numpy", "pillow", "datasets")
BENCHMARKING = (*COMPUTING, "lmms-eval", "qwen-vl-utils")


def digest(value: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of the canonical JSON of ``value``."""
    text = json.dumps(value, sort_keys=True, default=lambda v: asdict(v) if is_dataclass(v) else str(v))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def code_version(parts: tuple[str, ...]) -> str:
    """Hash of the package's Python and YAML sources under the named folders or patterns."""
    files = {
        file
        for part in parts
        for file in (PACKAGE.glob(part) if "*" in part or part.endswith(".py") else (PACKAGE / part).rglob("*"))
        if file.suffix in (".py", ".yaml")
    }
    return digest({str(f.relative_to(PACKAGE)): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(files)})


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
    """Identity of the quantized model; ``None`` in 16 bits. ``calibration``: hash of the calibration set's content."""
    if config.quant.weights is None:
        return None
    data_driven = needs_calibration(config)
    return digest(
        {
            "model": model,
            "quant": {**asdict(config.quant), "name": None},
            "equalization": config.equalization,
            "rounding": config.rounding,
            "sensitivity": config.sensitivity if data_driven else None,
            "calibration": [config.calibration, calibration] if data_driven else None,
            "seed": config.seed if data_driven else None,
            "code": code_version(QUANTIZATION_CODE),
            "versions": versions(COMPUTING),
        }
    )


def gradients_key(config: Config, model: dict[str, Any], calibration: str) -> str:
    """Identity of the 16-bit model's gradients on the calibration set: the same for all grids and methods."""
    return digest(
        {
            "model": model,
            "calibration": [config.calibration, calibration],
            "seed": config.seed,
            "code": code_version(QUANTIZATION_CODE),
            "versions": versions(COMPUTING),
        }
    )


def evaluation_key(config: Config, model: dict[str, Any], quantized: str | None) -> str:
    """Identity of the benchmark's samples; nothing that changes no answer enters."""
    apart = dict.fromkeys(("processes", "max_empty_share", "max_unparsed_share"))
    return digest(
        {
            "model": quantized or model,
            "evaluation": {**asdict(config.evaluation), **apart},
            "text": content_hash(EVALUATION) if config.evaluation.text is not None else None,
            "code": code_version(EVALUATION_CODE),
            "versions": versions(BENCHMARKING),
        }
    )


def run_key(config: Config, quantized: str | None, evaluation: str) -> str:
    """Identity of the run record: its stages and the names that it goes by in tables."""
    names = {"method": config.method, "model": config.model.name, "quant": config.quant.name}
    return digest({**names, "stages": [quantized, evaluation]})
