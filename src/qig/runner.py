"""The recipe: checkpoint -> calibration -> block pass -> quantized model -> benchmark -> run record.

Each stage is an artefact of the store under the identity of what decides it; what is there is not computed again.
Nothing heavy is imported before it is known that something must be computed.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qig.config import identity
from qig.config.schema import Config
from qig.config.validation import baseline, resolve
from qig.errors import ConfigError
from qig.evaluation.registry import check_tasks
from qig.models import checkpoint
from qig.store import Store, write_json

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
BASELINES = {"16 bit": "none", "rtn": "rtn"}


@dataclass(frozen=True)
class Outcome:
    """A finished run, whether it was in the store already, and the runs it is compared with."""

    run: str
    cached: bool
    baselines: dict[str, str]
    store: Path


@dataclass(frozen=True)
class Keys:
    quantized: str | None
    evaluation: str
    run: str


class Prepared:
    """A configuration that has passed every check that can be made without loading anything.

    Raises:
        QigError: the configuration, the benchmark's name, the checkpoint, the device or the store does not allow it.
    """

    def __init__(self, config: Config) -> None:
        self.config = resolve(config)
        check_tasks(self.config.evaluation.tasks)
        directory = checkpoint.resolve(self.config.model.path)
        weights = self.config.quant.weights
        if weights is not None:
            checkpoint.check_group_size(directory, self.config.quant.linears, weights.group_size)
        device = device_name(self.config.device)
        self._stages = Stages(Store(self.config.store), checkpoint.content_hash(directory), device)
        method = self.config.method
        self._baselines = {
            title: baseline(self.config, name) for title, name in BASELINES.items() if method not in ("none", name)
        }

    @property
    def cached(self) -> bool:
        """Whether this run and those it is compared with are in the store already."""
        return all(self._stages.has_record(config) for config in (self.config, *self._baselines.values()))

    def run(self) -> Outcome:
        """The baselines, then the run itself.

        Raises:
            QigError: data or model turn out unusable; nothing is left that a later run would take for finished.
        """
        baselines = {title: self._stages.record(config)[0] for title, config in self._baselines.items()}
        run_id, cached = self._stages.record(self.config)
        return Outcome(run_id, cached, baselines, self._stages.store.root)


def device_name(configured: str) -> str:
    """The device that the configuration means; ``auto`` is the first accelerator that torch finds, else ``cpu``.

    Raises:
        ConfigError: torch does not know the device, or it is not there.
    """
    import torch

    if configured == "auto":
        return torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"
    try:
        torch.empty(0, device=configured)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device={configured!r} cannot be used ({reason}); choose auto, cpu, or one that is there"
        ) from error
    return configured


@dataclass(frozen=True)
class Stages:
    """The artefacts of one configuration and of its baselines: their identities, and how they are made."""

    store: Store
    checkpoint_hash: str
    device: str

    def keys(self, config: Config) -> Keys:
        model = identity.model_identity(config, self.checkpoint_hash, self.device.partition(":")[0])
        quantized = identity.quantized_key(config, model)
        evaluation = identity.evaluation_key(config, model, quantized)
        return Keys(quantized, evaluation, identity.run_key(config, quantized, evaluation))

    def has_record(self, config: Config) -> bool:
        return self.store.find("runs", self.keys(config).run) is not None

    def record(self, config: Config) -> tuple[str, bool]:
        """The id of the run record, made if need be with the stages before it; and whether it was there."""
        keys = self.keys(config)
        title = f"{config.model.name} {config.quant.name} {config.method}"
        folder, cached = self.store.make("runs", keys.run, lambda f: self._make(f, config, keys, title))
        log.info("%s: %s %s", title, "already in the store, run" if cached else "run", folder.name)
        return keys.run, cached

    def _make(self, folder: Path, config: Config, keys: Keys, title: str) -> None:
        import torch

        from qig.calibrate import quantize
        from qig.environment import environment
        from qig.models.loading import open_model
        from qig.quantized import RECORD, model_bytes

        device = torch.device(self.device)
        _prepare(config)
        quantized: dict[str, Any] = {"sites": [], "timings": {}, "memory": {}, "calibration": None}
        stage = None
        if keys.quantized is not None:
            log.info("%s: quantizing", title)
            stage, _ = self.store.make(
                "quantized", keys.quantized, lambda f: quantize(config, device, f), resumable=True
            )
            quantized = json.loads((stage / RECORD).read_text())
        log.info("%s: evaluating on %s", title, ", ".join(config.evaluation.tasks))
        samples, _ = self.store.make("evaluation", keys.evaluation, lambda f: _evaluate(config, device, stage, f))
        evaluated = json.loads((samples / "evaluation.json").read_text())
        write_json(
            folder / "record.json",
            {
                "id": keys.run,
                "method": config.method,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "config": asdict(config),
                "stages": {
                    "calibration": quantized["calibration"],
                    "quantized": keys.quantized,
                    "evaluation": keys.evaluation,
                },
                "checkpoint": {"path": config.model.path, "sha256": self.checkpoint_hash},
                "environment": environment(device),
                "timings": {**quantized["timings"], **evaluated["timings"]},
                "memory": quantized["memory"] or evaluated["memory"],
                "model_bytes": quantized.get("model_bytes") or model_bytes(open_model(config.model, device), None),
                "sites": quantized["sites"],
                "metrics": evaluated["metrics"],
                "versions": evaluated["versions"],
            },
        )


def _evaluate(config: Config, device: torch.device, quantized: Path | None, folder: Path) -> None:
    """Benchmark the 16-bit model, or the one that the quantized stage's folder holds."""
    from qig.blockwise.timing import PeakMemory, Stopwatch
    from qig.evaluation.benchmark import evaluate
    from qig.models.loading import load
    from qig.quantized import apply_quantized

    watch = Stopwatch()
    with PeakMemory(device) as memory:
        loaded = load(config.model, device)
        if quantized is not None:
            apply_quantized(loaded, config.quant, quantized)
        with watch("evaluation"):
            result = evaluate(loaded.model, loaded.processor, **asdict(config.evaluation))
    with (folder / "samples.jsonl").open("w") as stream:
        stream.writelines(json.dumps(sample) + "\n" for sample in result.samples)
    write_json(
        folder / "evaluation.json",
        {
            "metrics": result.metrics,
            "versions": result.versions,
            "timings": watch.seconds,
            "memory": {"peak_host_bytes": memory.host_bytes, "peak_device_bytes": memory.device_bytes},
        },
    )


def _prepare(config: Config) -> None:
    """Threads, seeds, deterministic kernels where they exist, and quiet libraries."""
    import random

    import numpy as np
    import torch

    from qig.environment import quiet

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    random.seed(config.seed)
    np.random.seed(config.seed)
    torch.manual_seed(config.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    quiet()
