"""The stages of a run as artefacts of the store: their identities, how they are made, and the record over them.

Nothing heavy is imported before it is known that something must be computed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from qig.config import identity
from qig.config.schema import Config
from qig.config.validation import needs_calibration, needs_gradients
from qig.data.sets import content_hash
from qig.devices import check_evaluation, device_name, enough_memory
from qig.errors import ConfigError
from qig.evaluated import evaluate, join, parts
from qig.heap import give_back
from qig.models import checkpoint
from qig.store import Store, write_json

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


STORED = "stored"  # a checkpoint that holds integers, as it is: it has no 16-bit self to be compared with


def decide(config: Config, checkpoint_dir: Path) -> None:
    """Set in a resolved configuration what its checkpoint decides: the type of its numbers, whether they are integers.

    Raises:
        ConfigError: it is quantized already, and was to be quantized.
    """
    if config.model.dtype == "auto":
        config.model.dtype = checkpoint.own_dtype(checkpoint_dir)
    if checkpoint.is_quantized(checkpoint_dir):
        if config.quant.weights is not None:
            raise ConfigError(
                f"{checkpoint_dir} is quantized already: evaluate it with method=none, or quantize its 16-bit "
                "checkpoint"
            )
        config.method = config.quant.name = STORED


@dataclass(frozen=True)
class Keys:
    gradients: str | None
    quantized: str | None
    evaluation: str
    run: str

    @property
    def stages(self) -> dict[str, str]:
        """Kind to key of what a run's record speaks of."""
        return {"evaluation": self.evaluation} | ({} if self.quantized is None else {"quantized": self.quantized})


@dataclass(frozen=True)
class Stages:
    """The artefacts of one configuration and of its baselines: their identities, and how they are made."""

    store: Store
    checkpoint_hash: str
    calibration_hash: str | None
    device: str

    @classmethod
    def of(cls, config: Config, checkpoint_hash: str) -> Stages:
        """Of a resolved configuration and its baselines.

        Raises:
            QigError: the device is not there, the calibration set is not there, or the store cannot be written; or
                evaluation is to use more devices than there are.
        """
        device = device_name(config.device)
        check_evaluation(config.evaluation, device)
        data = content_hash(config.calibration) if needs_calibration(config) else None
        return cls(Store(config.store), checkpoint_hash, data, device)

    def keys(self, config: Config) -> Keys:
        model = identity.model_identity(config, self.checkpoint_hash, self.device.partition(":")[0])
        quantized = identity.quantized_key(config, model, self.calibration_hash)
        gradients = identity.gradients_key(config, model, self.calibration_hash) if needs_gradients(config) else None
        evaluation = identity.evaluation_key(config, model, quantized)
        return Keys(gradients, quantized, evaluation, identity.run_key(config, quantized, evaluation))

    def has_record(self, keys: Keys) -> bool:
        """Whether a run's record and its answers are there, undamaged, and its integers there.

        These may be gigabytes: a run, an export and ``qig-runs verify`` look whether they are damaged.
        """
        read = (("runs", keys.run), ("evaluation", keys.evaluation))
        return all(self.store.find(kind, key) is not None for kind, key in read) and all(
            self.store.path(kind, key).is_dir() for kind, key in keys.stages.items()
        )

    def is_made_elsewhere(self, config: Config) -> bool:
        """Whether a process, this one or another, is at the run just now."""
        return self.store.holder("runs", self.keys(config).run) is not None

    def record(self, config: Config) -> tuple[str, bool]:
        """The id of the run record, made if need be with the stages before it; and whether it was there.

        Where one of its stages is damaged or gone, the record is set aside and all of it is made again.

        Raises:
            EvaluationError: the answers are none, as in ``qig.evaluation.summary``, whoever asked for them.
        """
        keys = self.keys(config)
        title = f"{config.model.name} {config.quant.name} {config.method}"
        if self.store.path("runs", keys.run).is_dir() and self._lacking(keys) is not None:
            self.store.set_aside("runs", keys.run, lambda: self._lacking(keys))
        folder, cached = self.store.make("runs", keys.run, lambda f: self._make(f, config, keys, title))
        if cached:  # by a run that may have taken more empty answers than this one does
            self._check_answers(config, self.store.path("evaluation", keys.evaluation))
        else:
            give_back()
        log.info("%s: %s %s", title, "already in the store, run" if cached else "run", folder.name)
        return keys.run, cached

    def _lacking(self, keys: Keys) -> str | None:
        """What a record would speak of that is damaged or not there, in words."""
        lacking = [f"{kind} {key}" for kind, key in keys.stages.items() if self.store.find(kind, key) is None]
        return f"{', '.join(lacking)} is damaged or gone" if lacking else None

    def _make(self, folder: Path, config: Config, keys: Keys, title: str) -> None:
        import torch

        from qig.environment import quiet
        from qig.record import write_record

        device = torch.device(self.device)
        quiet()
        stage = None
        if keys.quantized is not None:

            def gradients(build: Callable[[Path], None]) -> Path:
                return self.store.make("gradients", keys.gradients, build, resumable=True)[0]

            def quantized(folder: Path) -> None:
                log.info("%s: quantizing on %s", title, device)
                _quantize(config, device, folder, None if keys.gradients is None else gradients)

            stage, _ = self.store.make("quantized", keys.quantized, quantized, resumable=True)
        samples = self._evaluation(config, keys, device, stage, title)
        self._check_answers(config, samples)
        write_record(folder, config, keys, (self.checkpoint_hash, self.calibration_hash), device, stage, samples)

    @staticmethod
    def _check_answers(config: Config, folder: Path) -> None:
        from qig.evaluation.parallel import read_samples
        from qig.evaluation.summary import check_answers

        check_answers(read_samples(folder), config.evaluation)

    def _evaluation(
        self, config: Config, keys: Keys, device: torch.device, quantized: Path | None, title: str
    ) -> Path:
        """The folder of the answers to all tasks. Each task's are an artefact of their own."""

        def one(config: Config, key: str) -> Path:
            def answers(folder: Path) -> None:
                asked = [*config.evaluation.tasks, config.evaluation.text.corpus]
                log.info("%s: evaluating on %s: %s", title, device, ", ".join(filter(None, asked)))
                evaluate(config, device, quantized, folder)

            return self.store.make("evaluation", key, answers, resumable=True)[0]

        alone = [replace(config, evaluation=part) for part in parts(config.evaluation)]
        if len(alone) == 1:
            return one(config, keys.evaluation)

        def together(folder: Path) -> None:
            join([one(part, self.keys(part).evaluation) for part in alone], folder)

        return self.store.make("evaluation", keys.evaluation, together)[0]


def _quantize(config: Config, device: torch.device, folder: Path, gradients: Callable | None) -> None:
    """Quantize into the stage's folder; its record also names what has no deterministic form."""
    from qig.calibrate import quantize
    from qig.determinism import strictly
    from qig.quantized import RECORD

    fewer = f"calibration.tokens_per_batch={config.calibration.tokens_per_batch // 2}"
    remedies = f"What is finished is kept. Try memory.activations=host (or disk), or {fewer}; plan=true foresees it"
    with enough_memory(device, remedies):
        without = strictly(config.seed, config.threads, lambda: quantize(config, device, folder, gradients))
    found = json.loads((folder / RECORD).read_text())
    write_json(folder / RECORD, {**found, "without_deterministic_form": sorted(without)})
