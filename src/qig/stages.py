"""The stages of a run as artefacts of the store: their identities, how they are made, and the record over them.

Nothing heavy is imported before it is known that something must be computed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qig.accelerator import idle_card, ruled_out
from qig.config import identity
from qig.config.schema import Config
from qig.config.validation import needs_calibration, needs_gradients
from qig.data.sets import content_hash
from qig.errors import ConfigError, QigError
from qig.heap import give_back
from qig.models import checkpoint
from qig.store import Store, find_damage, write_json, write_manifest

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
        check_processes(config.evaluation.processes, device)
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
        """
        keys = self.keys(config)
        title = f"{config.model.name} {config.quant.name} {config.method}"
        if self.store.path("runs", keys.run).is_dir() and self._lacking(keys) is not None:
            self.store.set_aside("runs", keys.run, lambda: self._lacking(keys))
        folder, cached = self.store.make("runs", keys.run, lambda f: self._make(f, config, keys, title))
        if not cached:
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
        from qig.evaluation.parallel import read_samples
        from qig.evaluation.summary import check_answers
        from qig.record import write_record

        device = torch.device(self.device)
        quiet()
        stage = None
        if keys.quantized is not None:
            log.info("%s: quantizing on %s", title, device)

            def gradients(build: Callable[[Path], None]) -> Path:
                return self.store.make("gradients", keys.gradients, build, resumable=True)[0]

            shared = None if keys.gradients is None else gradients
            stage, _ = self.store.make(
                "quantized", keys.quantized, lambda f: _quantize(config, device, f, shared), resumable=True
            )
        text = [config.evaluation.text.corpus] if config.evaluation.text is not None else []
        tasks = ", ".join([*config.evaluation.tasks, *text])
        log.info("%s: evaluating on %s: %s", title, device, tasks)
        samples, _ = self.store.make(
            "evaluation", keys.evaluation, lambda f: _evaluate(config, device, stage, f), resumable=True
        )
        check_answers(read_samples(samples), config.evaluation)
        write_record(folder, config, keys, (self.checkpoint_hash, self.calibration_hash), device, stage, samples)


@contextmanager
def _room(device: torch.device, remedies: str) -> Iterator[None]:
    """Raises QigError where the device's memory is too small; with remedies."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise QigError(f"the memory of {device} does not do: {str(error).splitlines()[0]} {remedies}") from error


def _quantize(config: Config, device: torch.device, folder: Path, gradients: Callable | None) -> None:
    """Quantize into the stage's folder; its record also names what has no deterministic form."""
    from qig.calibrate import quantize
    from qig.determinism import strictly
    from qig.quantized import RECORD

    fewer = f"calibration.tokens_per_batch={config.calibration.tokens_per_batch // 2}"
    remedies = f"What is finished is kept. Try memory.activations=host (or disk), or {fewer}; plan=true foresees it"
    with _room(device, remedies):
        without = strictly(config.seed, config.threads, lambda: quantize(config, device, folder, gradients))
    found = json.loads((folder / RECORD).read_text())
    write_json(folder / RECORD, {**found, "without_deterministic_form": sorted(without)})


def _evaluate(config: Config, device: torch.device, quantized: Path | None, folder: Path) -> None:
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
    from qig.models.loading import load
    from qig.quantized import apply_quantized

    watch, processes, elsewhere = Stopwatch(device), config.evaluation.processes, {}
    watch.add("evaluation", spent(folder))
    fewer = f"Try evaluation.batch_size={max(1, config.evaluation.batch_size // 2)} (answers anew: padding is another)"
    with _room(device, fewer), PeakMemory(device) as memory, watch("evaluation"):
        if processes > 1:
            quant = None if quantized is None else config.quant
            job = Job(config.model, quant, quantized, config.evaluation, str(device), config.threads, folder)
            give_back()  # the first of them works where this one did
            elsewhere = launch(job, processes)
        else:
            prepare(config.evaluation.seed, config.threads)
            loaded = load(config.model, device)
            if quantized is not None:
                apply_quantized(loaded, config.quant, quantized)
            evaluate_into(folder, loaded, config.evaluation)
    found = json.loads((folder / RESULT).read_text())
    found["timings"] = watch.seconds
    found["memory"] = larger(memory.so_far(), elsewhere)
    write_json(folder / RESULT, found)


def check_processes(processes: int, device: str) -> None:
    """Evaluation by several processes gives each an accelerator of its own; on the processor they share the cores.

    Raises:
        ConfigError: there are fewer accelerators.
    """
    if device == "cpu" or processes == 1:
        return
    import torch

    count = torch.accelerator.device_count()
    if processes > count:
        raise ConfigError(f"evaluation.processes={processes}: each takes a device of its own, and {count} can be seen")


def device_name(configured: str) -> str:
    """The device that the configuration means; ``auto`` is the first accelerator that will do, else ``cpu``.

    It has to have float64, in which errors, moments and integrals are added: Apple's (``mps``) does not.

    Raises:
        ConfigError: torch does not know the device, it is not there, or has no float64.
    """
    if configured == "cpu":
        return "cpu"
    if configured == "auto" and ruled_out():
        return _processor()  # a run that the store answers then starts without torch

    import torch

    found = configured
    if configured == "auto":
        found = torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"
    try:
        torch.empty(0, dtype=torch.float64, device=found)
    except (RuntimeError, AssertionError, TypeError) as error:  # the last: no float64
        if configured == "auto":
            return _processor()
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device={configured!r} cannot be used ({reason}); choose auto, cpu, or one that is there"
        ) from error
    return _processor() if configured == "auto" and found == "cpu" else found


def _processor() -> str:
    """What ``device=auto`` ends in for want of better; told where a graphics card is there that torch cannot use."""
    card = idle_card()
    if card is not None:
        log.warning(
            "device=auto: the processor does the work. %s: is its build for CUDA, the driver new enough, and "
            "was the job given a card? (python -c 'import torch; torch.cuda.init()' says why; device=cpu: no warning)",
            card,
        )
    return "cpu"
