"""From a checkpoint directory to a model in memory, by transformers' own classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

from qig.config.schema import Model
from qig.errors import ModelError
from qig.models import checkpoint
from qig.models.architectures import Architecture, architecture_of
from qig.models.outliers import inject


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode without gradients, its processor, and its row of the architecture table."""

    model: PreTrainedModel
    processor: ProcessorMixin
    architecture: Architecture

    @property
    def blocks(self) -> nn.ModuleList:
        """The decoder blocks of the language model."""
        return self.model.get_submodule(self.architecture.text_model).layers

    @property
    def image_token_ids(self) -> set[int]:
        ids = (getattr(self.model.config, name, None) for name in self.architecture.image_tokens)
        return {token for token in ids if token is not None}


def load(config: Model, device: torch.device) -> LoadedModel:
    """Load, check that all weights are finite, and inject the configured synthetic outliers.

    Raises:
        ModelError: absent or damaged checkpoint, unknown architecture, or a non-finite weight (named).
    """
    directory = checkpoint.resolve(config.path)
    loaded = _from_pretrained(directory, getattr(torch, config.dtype))
    refuse_non_finite(loaded.model)
    inject(loaded.blocks, loaded.architecture.sites, config.outliers.sigma, config.outliers.seed)
    loaded.model.to(device)
    return loaded


def _from_pretrained(directory: Path, dtype: torch.dtype) -> LoadedModel:
    architecture = architecture_of(checkpoint.model_type(directory))
    checkpoint.tensor_shapes(directory)  # a truncated file is named before transformers sees it
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(
            directory, dtype=dtype, local_files_only=True, output_loading_info=True
        )
        processor = AutoProcessor.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{directory} cannot be loaded by transformers: {error}") from error
    if report["missing_keys"]:  # transformers would leave them at random values
        missing = sorted(report["missing_keys"])
        raise ModelError(f"{directory} lacks {len(missing)} weights of the model: {', '.join(missing[:3])}")
    model.eval().requires_grad_(False)
    return LoadedModel(model, processor, architecture)


def refuse_non_finite(model: nn.Module) -> None:
    """Raises ModelError naming the first parameter that holds a NaN or an infinity."""
    for name, parameter in model.named_parameters():
        bad = int((~torch.isfinite(parameter)).sum())
        if bad:
            raise ModelError(f"weight {name} {tuple(parameter.shape)} holds {bad} non-finite values")
