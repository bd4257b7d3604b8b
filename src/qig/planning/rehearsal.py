"""The real calibration pass over a model of the true shape, but with random weights and two decoder blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoConfig

from qig.blockwise.activations import Activations, Kept
from qig.blockwise.run import BlockPass
from qig.blockwise.timing import PeakMemory
from qig.config.schema import Config, Model
from qig.data.calibration import CalibrationBatch
from qig.models import checkpoint
from qig.models.architectures import architecture_of
from qig.models.classes import FROM_FILES, model_class, processor_of
from qig.models.loading import LoadedModel, Source
from qig.models.outliers import outlier_scales

BLOCKS = 2  # in front of the first block both streams are equal, so that its costs are not those of the others
SPREAD = 0.02  # standard deviation of the random weights


class RandomTensors(Mapping[str, Tensor]):
    """Weights of a model on the meta device, made when asked for: norms 1, other vectors 0, matrices random."""

    def __init__(self, model: nn.Module) -> None:
        self._shapes = {name: (value.shape, value.dtype) for name, value in model.named_parameters()}

    def __getitem__(self, name: str) -> Tensor:
        shape, dtype = self._shapes[name]
        if len(shape) == 1:
            return torch.full(shape, 1.0 if name.endswith("weight") else 0.0, dtype=dtype)
        return SPREAD * torch.randn(shape, dtype=dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def shortened(config: Model, device: torch.device, blocks: int = BLOCKS, **text: Any) -> LoadedModel:
    """The configured model, outliers included, opened with random weights and few decoder blocks; none is read.

    Args:
        text: other values for fields of the text model's configuration, such as ``hidden_size``.
    """
    directory = checkpoint.resolve(config.path)
    own = AutoConfig.from_pretrained(directory, **FROM_FILES)
    architecture, fields = architecture_of(own.model_type), own.get_text_config()
    for name, value in {**text, "num_hidden_layers": blocks}.items():
        setattr(fields, name, value)
    if getattr(fields, "layer_types", None):
        fields.layer_types = (list(fields.layer_types) * blocks)[:blocks]
    with init_empty_weights(include_buffers=False):
        model = model_class(architecture).from_config(own, dtype=getattr(torch, config.dtype))
    model.tie_weights()
    processor = processor_of(directory, architecture)
    layers = model.get_submodule(architecture.text_model).layers
    scales = outlier_scales(layers, architecture.sites, config.outliers.sigma, config.outliers.seed)
    source = Source(RandomTensors(model), scales, device)
    return LoadedModel(model.eval().requires_grad_(False), processor, architecture, source)


class Weighed(Activations):
    """Activations on disk, weighed: ``peak`` is the most bytes that ever waited together."""

    def __init__(self, device: torch.device, folder: Path) -> None:
        super().__init__(device, "disk", folder)
        self.peak = 0

    def keep(self, tensor: Tensor) -> Tensor | Kept:
        kept = super().keep(tensor)
        self.peak = max(self.peak, sum(file.stat().st_size for file in self.folder.iterdir()))
        return kept


def waiting_bytes(
    loaded: LoadedModel, batches: Sequence[CalibrationBatch], config: Config, device: torch.device
) -> int:
    """How much waits for its turn at the most, wherever it waits, when these micro-batches are calibrated on."""
    with TemporaryDirectory() as folder:
        activations = Weighed(device, Path(folder) / "activations")
        BlockPass(loaded, list(batches), config, activations, Path(folder)).run()
    return activations.peak


@dataclass(frozen=True)
class Rehearsal:
    """What one rehearsal took.

    Attributes:
        tokens: real tokens of the micro-batches that were used.
        around: seconds in front of the blocks (embedding the samples, reading what stands around the blocks).
        host_bytes: peak resident size of the process; ``device_bytes``: peak allocation, None on the processor.
        stages: seconds of one block by stage, its share of the whole-model gradients included.
        seconds: the whole rehearsal.
    """

    tokens: int
    around: float
    host_bytes: int
    device_bytes: int | None
    stages: dict[str, float]
    seconds: float


def rehearse(
    loaded: LoadedModel, batches: Sequence[CalibrationBatch], config: Config, device: torch.device
) -> Rehearsal:
    """Run the configured pass over a shortened model and some micro-batches; nothing of it is kept."""
    with TemporaryDirectory() as folder:
        activations = Activations(device, config.memory.activations, Path(folder) / "activations")
        with PeakMemory(device) as memory:
            work = BlockPass(loaded, list(batches), config, activations, Path(folder))
            start = time.perf_counter()
            records = work.run()
            total = time.perf_counter() - start
    around = work.stopwatch.seconds.get("capture", 0.0)
    gradients = work.stopwatch.seconds.get("attribution", 0.0) / len(records)
    inside = [sum(record["seconds"].values()) for record in records]
    between = (total - around - gradients * len(records) - sum(inside)) / len(records)  # weights read, results written
    stages = dict(records[-1]["seconds"])
    stages["attribution"] = stages.get("attribution", 0.0) + gradients
    stages["reading and writing"] = between
    return Rehearsal(
        tokens=sum(int(batch.real.sum()) for batch in batches),
        around=around,
        host_bytes=memory.host_bytes,
        device_bytes=memory.device_bytes,
        stages=stages,
        seconds=total,
    )
