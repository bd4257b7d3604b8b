"""What a benchmark works on: a model (an embedded one, or a published shape with random weights) and its batches."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from omegaconf import OmegaConf

from qig.bench.shapes import SHAPES
from qig.config.composed import composed
from qig.config.schema import Config
from qig.config.validation import resolve
from qig.data.calibration import CalibrationBatch, calibration_data
from qig.models.loading import LoadedModel, load, open_model
from qig.planning.rehearsal import shortened

FRAME = "tiny_llava_onevision"  # what stands around the blocks of a published shape
LONG = (  # samples of about 400 tokens
    "calibration=few_shot", "calibration@calibration.of=digitgrid", "calibration.shots=6",
)  # fmt: skip
SEED = 0


def configured(*overrides: str) -> Config:
    """The resolved configuration of these overrides, without tracking."""
    return resolve(composed(["tracking=none", *overrides]))


@dataclass(frozen=True)
class Work:
    """A model in memory, its micro-batches, and how it is quantized.

    Attributes:
        name: of the shape or of the embedded model.
        overrides: of model and samples; ``config`` is theirs and the method's.
        blocks: decoder blocks that it has here.
        text: fields of the text model's configuration that make the shape; none for an embedded model.
    """

    name: str
    overrides: tuple[str, ...]
    config: Config
    original: LoadedModel
    batches: list[CalibrationBatch]
    device: torch.device
    text: dict[str, int]

    @property
    def blocks(self) -> int:
        return len(self.original.blocks)

    @property
    def samples(self) -> int:
        return sum(len(batch.ids) for batch in self.batches)

    @property
    def tokens(self) -> int:
        """Real tokens of all samples."""
        return sum(int(batch.real.sum()) for batch in self.batches)

    def model(self) -> LoadedModel:
        """A copy that may be quantized in place."""
        original = self.original
        return LoadedModel(copy.deepcopy(original.model), original.processor, original.architecture)

    def opened(self) -> LoadedModel:
        """The same model as a calibration opens it: blocks are brought in one by one, anew each time."""
        if not self.text:
            return open_model(self.config.model, self.device)
        return shortened(self.config.model, self.device, self.blocks, **self.text)

    def short(self) -> LoadedModel:
        """What ``plan=true`` rehearses on: two random blocks of the same sizes."""
        return shortened(self.config.model, self.device, **self.text)

    def under(self, *overrides: str) -> Work:
        """The same model and samples under another method or bit setting."""
        return replace(self, config=configured(*self.overrides, *overrides))

    def of_samples(self, samples: int) -> Work:
        """The same model in memory, with so many calibration samples."""
        overrides = (*self.overrides, f"calibration.samples={samples}")
        config = configured(*overrides)
        return replace(self, overrides=overrides, config=config, batches=_batches(config, self.original))


def of_shape(shape: str, blocks: int, overrides: Sequence[str], device: torch.device) -> Work:
    """Random blocks of a published shape; what stands around them is that of a small model.

    Weights are normal, with the small model's synthetic outliers: without any, no exponent of the search is better
    than another. ``overrides`` are of the samples, such as ``calibration.samples=8``.
    """
    dtype = () if device.type == "cpu" else ("model.dtype=bfloat16",)  # as such models run there
    overrides = (f"model={FRAME}", *dtype, *LONG, *overrides)
    config, text = configured(*overrides), text_fields(shape)
    torch.manual_seed(SEED)
    opened = shortened(config.model, device, blocks, **text)
    return _work(shape, overrides, config, opened.in_memory(), device, text)


def of_model(name: str, overrides: Sequence[str], device: torch.device) -> Work:
    """An embedded model with its own weights and outliers."""
    overrides = (f"model={name}", *overrides)
    config = configured(*overrides)
    return _work(name, overrides, config, load(config.model, device), device, {})


def text_fields(shape: str) -> dict[str, int]:
    """Fields of the text model's configuration that make a shape."""
    fields = OmegaConf.to_object(OmegaConf.load(SHAPES[shape]))
    return {**fields, "head_dim": fields["hidden_size"] // fields["num_attention_heads"]}


def _work(
    name: str,
    overrides: tuple[str, ...],
    config: Config,
    loaded: LoadedModel,
    device: torch.device,
    text: dict[str, int],
) -> Work:
    return Work(name, overrides, config, loaded, _batches(config, loaded), device, text)


def _batches(config: Config, loaded: LoadedModel) -> list[CalibrationBatch]:
    return calibration_data(config.calibration, loaded.processor, loaded.model, loaded.image_token_ids).batches
