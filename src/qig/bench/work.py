"""What a benchmark works on: a model (an embedded one, or a published shape with random weights) and its batches."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from qig.bench.shapes import SHAPES
from qig.config import conf_dir, register
from qig.config.schema import Config
from qig.config.validation import resolve
from qig.data.calibration import CalibrationBatch, calibration_data
from qig.models.loading import LoadedModel, load
from qig.models.outliers import outlier_scales
from qig.planning.rehearsal import shortened

FRAME = "tiny_llava_onevision"  # what stands around the blocks of a published shape
LONG = (  # samples of about 400 tokens
    "calibration=few_shot", "calibration@calibration.of=digitgrid", "calibration.shots=6",
)  # fmt: skip
SEED = 0


def configured(*overrides: str) -> Config:
    """The resolved configuration of these overrides, without tracking."""
    register()
    with initialize_config_dir(config_dir=str(conf_dir())):
        return resolve(OmegaConf.to_object(compose("config", overrides=["tracking=none", *overrides])))


@dataclass(frozen=True)
class Work:
    """A model in memory, its micro-batches, and how it is quantized.

    Attributes:
        name: of the shape or of the embedded model.
        overrides: of model and samples; ``config`` is theirs and the method's.
        blocks: decoder blocks that it has here.
    """

    name: str
    overrides: tuple[str, ...]
    config: Config
    original: LoadedModel
    batches: list[CalibrationBatch]
    device: torch.device

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

    def under(self, *overrides: str) -> Work:
        """The same model and samples under another method or bit setting."""
        return replace(self, config=configured(*self.overrides, *overrides))


def of_shape(shape: str, blocks: int, overrides: Sequence[str], device: torch.device) -> Work:
    """Random blocks of a published shape; what stands around them is that of a small model.

    Weights are normal, with the small model's synthetic outliers: without any, no exponent of the search is better
    than another. ``overrides`` are of the samples, such as ``calibration.samples=8``.
    """
    overrides = (f"model={FRAME}", *LONG, *overrides)
    config = configured(*overrides)
    torch.manual_seed(SEED)
    opened = shortened(config.model, device, blocks, **text_fields(shape))
    outliers = config.model.outliers
    scales = outlier_scales(opened.blocks, opened.architecture.sites, outliers.sigma, outliers.seed)
    opened = replace(opened, source=replace(opened.source, outliers=scales))
    return _work(shape, overrides, config, opened.in_memory(), device)


def of_model(name: str, overrides: Sequence[str], device: torch.device) -> Work:
    """An embedded model with its own weights and outliers."""
    overrides = (f"model={name}", *overrides)
    config = configured(*overrides)
    return _work(name, overrides, config, load(config.model, device), device)


def text_fields(shape: str) -> dict[str, int]:
    """Fields of the text model's configuration that make a shape."""
    fields = OmegaConf.to_object(OmegaConf.load(SHAPES[shape]))
    return {**fields, "head_dim": fields["hidden_size"] // fields["num_attention_heads"]}


def _work(name: str, overrides: tuple[str, ...], config: Config, loaded: LoadedModel, device: torch.device) -> Work:
    data = calibration_data(config.calibration, loaded.processor, loaded.model, loaded.image_token_ids)
    return Work(name, overrides, config, loaded, data.batches, device)
