"""``plan=true``: memory, time and disk of a calibration, before any weight is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import psutil
import torch
from transformers import AutoConfig

from qig.blockwise.activations import fits
from qig.blockwise.methods import Methods
from qig.config.schema import Config
from qig.config.validation import needs_calibration, needs_gradients
from qig.data.calibration import CalibrationBatch, calibration_data
from qig.models import checkpoint
from qig.models.classes import FROM_FILES
from qig.models.loading import LoadedModel
from qig.planning.rehearsal import Rehearsal, rehearse, shortened, waiting_bytes
from qig.sensitivity.gradients import hidden_bytes

MEBI = 2**20
FEW, MORE = 2, 8  # micro-batches of the two rehearsals


@dataclass(frozen=True)
class Plan:
    """A prediction.

    Attributes:
        samples, tokens: what is calibrated on; ``blocks``: decoder blocks of the model.
        seconds: calibration, without the evaluation; ``stages``: the same by stage.
        host_bytes, device_bytes: peaks (of the device None on the processor).
        disk_bytes: what the quantized stage keeps; ``scratch_bytes``: files of waiting activations while it is made.
    """

    samples: int
    tokens: int
    blocks: int
    seconds: float
    stages: dict[str, float]
    host_bytes: int
    device_bytes: int | None
    disk_bytes: int
    scratch_bytes: int

    def text(self) -> str:
        """The plan in words, a line a fact."""
        minutes, seconds = divmod(round(self.seconds), 60)
        stages = ", ".join(f"{name} {value:.3g} s" for name, value in self.stages.items())
        device = "none" if self.device_bytes is None else f"{self.device_bytes / MEBI:,.0f} MiB at the peak"
        kept, scratch = self.disk_bytes / MEBI, self.scratch_bytes / MEBI
        return (
            f"  calibration    {self.samples} samples, {self.tokens:,} tokens, {self.blocks} blocks\n"
            f"  time           {minutes} min {seconds} s, without the evaluation ({stages})\n"
            f"  device memory  {device}\n"
            f"  host memory    {self.host_bytes / MEBI:,.0f} MiB at the peak\n"
            f"  disk           {kept:,.0f} MiB kept, {scratch:,.0f} MiB more while it runs"
        )


def plan(config: Config, device: torch.device) -> Plan:
    """What the calibration of a resolved configuration will take. Samples are read and tokenized, no weight is.

    Raises:
        QigError: the checkpoint or the calibration set is not there.
    """
    loaded = shortened(config.model, device)
    batches = []
    if needs_calibration(config):
        data = calibration_data(config.calibration, loaded.processor, loaded.model, loaded.image_token_ids)
        batches = data.batches
    return foresee(loaded, batches, _blocks(config), config, device)


def foresee(
    loaded: LoadedModel, batches: list[CalibrationBatch], blocks: int, config: Config, device: torch.device
) -> Plan:
    """Predict from two rehearsals, with few and with more micro-batches: what grows with the tokens is told apart.

    ``MORE`` are enough for the early stop of the search to spare what it spares later, too.

    Args:
        loaded: the shortened model; ``blocks``: how many decoder blocks the whole one has.
    """
    tokens = sum(int(batch.real.sum()) for batch in batches)
    more = sorted(batches, key=lambda batch: int(batch.real.sum()))[len(batches) // 2 :][:MORE]
    few = more[:FEW]
    # The first turn also chooses kernels and takes memory, which the others then do not pay for.
    waiting = waiting_bytes(loaded, few, config, device) * _places(batches) // max(_places(few), 1)
    trials = [rehearse(loaded, few, config, device), rehearse(loaded, more, config, device)]

    def at_all(value: Callable[[Rehearsal], float]) -> float:
        return _extrapolated([(trial.tokens, value(trial)) for trial in trials], tokens)

    stages = {"around the blocks": at_all(lambda trial: trial.around)}
    for name in trials[-1].stages:
        stages[name] = blocks * at_all(lambda trial, name=name: trial.stages.get(name, 0.0))
    on_disk, on_host = config.memory.activations == "disk", device.type == "cpu" or config.memory.activations == "host"
    pixels = _input_bytes(batches)
    # Gradients of the whole model's loss keep every block's input until they come back there.
    kept = (blocks + 2) * hidden_bytes(loaded, batches) if needs_gradients(config) else 0
    kept_on_disk = on_disk or not fits(kept)
    beyond = max(kept - waiting, 0) if on_host else kept
    grown = 0 if on_disk else waiting * (_places(batches) - _places(few)) // max(_places(batches), 1)
    return Plan(
        samples=sum(len(batch.ids) for batch in batches),
        tokens=tokens,
        blocks=blocks,
        seconds=sum(stages.values()),
        stages=stages,
        host_bytes=max(trials[0].host_bytes, psutil.Process().memory_info().rss) + (grown if on_host else 0) + pixels
        + (0 if kept_on_disk else beyond),
        device_bytes=None if trials[0].device_bytes is None else trials[0].device_bytes + (0 if on_host else grown),
        disk_bytes=blocks * _stage_bytes(loaded, config, tokens),
        scratch_bytes=max(waiting if on_disk else 0, kept if kept_on_disk else 0),
    )


def _extrapolated(points: list[tuple[int, float]], tokens: int) -> float:
    """The line through two measurements at ``tokens``; proportional where it would fall, or there is but one point."""
    (few, least), (more, most) = points
    if more == few:
        return least * (tokens / few if few else 1)
    slope = (most - least) / (more - few)
    return most + slope * (tokens - more) if slope > 0 else most * tokens / more


def _blocks(config: Config) -> int:
    own = AutoConfig.from_pretrained(checkpoint.resolve(config.model.path), **FROM_FILES)
    return own.get_text_config().num_hidden_layers


def _places(batches: list[CalibrationBatch]) -> int:
    """Tokens, padding included: so many rows has everything that waits."""
    return sum(batch.kinds.numel() for batch in batches)


def _stage_bytes(loaded: LoadedModel, config: Config, tokens: int) -> int:
    """Bytes of one quantized block's folder: an integer a byte, scales, the block's other weights, token weights."""
    methods = Methods.of(config)
    linears = methods.setting.selected(loaded.blocks[0])
    grid, others = methods.setting.weights, dict(loaded.blocks[0].named_parameters())
    total = 0
    for name, linear in linears.items():
        del others[f"{name}.weight"]
        groups = linear.in_features // (grid.group_size or linear.in_features)
        total += linear.weight.numel() + linear.out_features * groups * (4 if grid.symmetric else 5)
    total += sum(value.numel() * value.dtype.itemsize for value in others.values())
    sites = len(loaded.architecture.sites) if methods.rounder.needs_inputs else len(methods.sites)
    return total + 2 * (tokens * sites * 4 if methods.weighted else 0)  # in the block's folder, and gathered


def _input_bytes(batches: list[CalibrationBatch]) -> int:
    return sum(value.numel() * value.dtype.itemsize for batch in batches for value in batch.inputs.values())
