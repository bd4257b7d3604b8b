"""The run record: what was run, of which content, where and in what state of the code, how long, what came out."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qig.config.schema import Config
from qig.store import write_json
from qig.store.files import sha256

if TYPE_CHECKING:
    import torch

    from qig.stages import Keys

RECORD, CHANGES = "record.json", "changes.patch"


def write_record(
    folder: Path,
    config: Config,
    keys: Keys,
    hashes: tuple[str, str | None],
    device: torch.device,
    quantized: Path | None,
    evaluation: Path,
) -> None:
    """Leave in ``folder`` the record of a run, and what the code differs in from its commit.

    ``hashes``: of the checkpoint's content and of the calibration set's. ``quantized``, ``evaluation``: the folders of
    the finished stages.
    """
    from qig.blockwise.timing import larger
    from qig.determinism import prepare
    from qig.environment import environment
    from qig.evaluation.parallel import RESULT, SAMPLES
    from qig.models.checkpoint import file_hashes, resolve
    from qig.models.loading import open_model
    from qig.quantized import RECORD as QUANTIZED
    from qig.quantized import model_bytes
    from qig.repository import repository

    found: dict[str, Any] = {"sites": [], "timings": {}, "memory": {}, "calibration": None}
    if quantized is not None:
        found = json.loads((quantized / QUANTIZED).read_text())
    evaluated = json.loads((evaluation / RESULT).read_text())
    prepare(config.evaluation.seed, config.threads)  # as the stages did, should this process have found them all
    clone = repository()
    if clone is not None:
        clone.write_diff(folder / CHANGES)
    checkpoint, calibration = hashes
    write_json(
        folder / RECORD,
        {
            "id": keys.run,
            "method": config.method,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "config": asdict(config),
            "stages": {
                "calibration": found["calibration"],
                "gradients": keys.gradients,
                "quantized": keys.quantized,
                "evaluation": keys.evaluation,
                "parts": evaluated.get("parts", []),
            },
            "checkpoint": {
                "path": config.model.path,
                "sha256": checkpoint,
                "files": file_hashes(resolve(config.model.path)),
            },
            "data": {
                "calibration": None if found["calibration"] is None else calibration,
                "evaluation": {"documents": evaluated["documents"], SAMPLES: sha256(evaluation / SAMPLES)},
            },
            "environment": environment(device, clone),
            "determinism": _determinism(config, found, evaluated),
            "timings": {**found["timings"], **evaluated["timings"]},
            "memory": larger(found["memory"], evaluated["memory"]),
            "model_bytes": found.get("model_bytes") or model_bytes(open_model(config.model, device), None),
            "sites": found["sites"],
            "metrics": evaluated["metrics"],
            "protocol": evaluated["protocol"],
            "versions": evaluated["versions"],
        },
    )


def _determinism(config: Config, *stages: dict[str, Any]) -> dict[str, Any]:
    """The seeds that were set, and the operations that have no deterministic form."""
    return {
        "seeds": {
            "python, numpy, torch": {"quantization": config.seed, "evaluation": config.evaluation.seed},
            "lmms-eval": config.evaluation.seed,
            "calibration": config.calibration.seed,
        },
        "threads": config.threads,
        "deterministic_kernels": True,
        "without_deterministic_form": sorted(
            {name for stage in stages for name in stage.get("without_deterministic_form", ())}
        ),
    }
