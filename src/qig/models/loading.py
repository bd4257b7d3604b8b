"""From a checkpoint directory to a model, by transformers' own classes: in memory, or opened block by block."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from qig.config.schema import Model
from qig.errors import ModelError
from qig.models import checkpoint
from qig.models.architectures import Architecture, architecture_of
from qig.models.classes import FROM_FILES, Processor, model_class, processor_of, unloadable
from qig.models.files import not_read, tensor_shapes
from qig.models.outliers import inject, outlier_scales
from qig.models.weights import fill, filled, refuse_non_finite

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Where the weights of an opened model come from.

    Attributes:
        tensors: by the model's own names; a tensor is read from the checkpoint's files when it is asked for.
        outliers: synthetic outlier scales of each block.
        device: where weights go.
    """

    tensors: Mapping[str, Tensor]
    outliers: list[dict[str, Tensor]]
    device: torch.device


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode without gradients, what makes its inputs, and its row of the architecture table.

    With a ``source`` the model is only opened: its parameters are on the meta device, and ``block`` and ``frame``
    bring in what is needed for as long as it is needed. Without one, all of it is in memory.
    """

    model: PreTrainedModel
    processor: Processor
    architecture: Architecture
    source: Source | None = None

    @property
    def blocks(self) -> nn.ModuleList:
        """The decoder blocks of the language model."""
        return self.model.get_submodule(self.architecture.text_model).layers

    @property
    def image_token_ids(self) -> set[int]:
        ids = (getattr(self.model.config, name, None) for name in self.architecture.image_tokens)
        return {token for token in ids if token is not None}

    @contextmanager
    def block(self, index: int) -> Iterator[nn.Module]:
        """Decoder block ``index`` on its device: a copy that is forgotten afterwards, or the block in memory itself.

        Raises:
            ModelError: a weight is not finite.
        """
        yield self.blocks[index] if self.source is None else self._read_block(copy.deepcopy(self.blocks[index]), index)

    @contextmanager
    def frame(self) -> Iterator[None]:
        """Within the context everything but the decoder blocks is on its device."""
        if self.source is None:
            yield
            return
        with filled(self.model, self.source.tensors, self.source.device, skip=self._prefix):
            yield

    def in_memory(self) -> LoadedModel:
        """The whole of an opened model on its device."""
        if self.source is None:
            return self
        fill(self.model, "", self.source.tensors, self.source.device, skip=self._prefix)
        self.model.tie_weights()
        for index, block in enumerate(self.blocks):
            self._read_block(block, index)
        return LoadedModel(self.model, self.processor, self.architecture)

    @property
    def _prefix(self) -> str:
        return f"{self.architecture.text_model}.layers."

    def _read_block(self, block: nn.Module, index: int) -> nn.Module:
        fill(block, f"{self._prefix}{index}.", self.source.tensors, self.source.device)
        inject(block, self.architecture.sites, self.source.outliers[index])
        return block


def load(config: Model, device: torch.device) -> LoadedModel:
    """The whole model in memory, with the configured synthetic outliers.

    Raises:
        ModelError: absent or damaged checkpoint, unknown architecture, or a non-finite weight (named).
    """
    return open_model(config, device).in_memory()


def open_model(config: Model, device: torch.device) -> LoadedModel:
    """The model without its weights, which ``LoadedModel.block`` and ``frame`` bring in from the checkpoint's files.

    A checkpoint that is quantized already is brought in whole: transformers unpacks its integers.

    Raises:
        ModelError: absent or damaged checkpoint, or unknown architecture.
    """
    directory = checkpoint.resolve(config.path)
    architecture = architecture_of(checkpoint.model_type(directory))
    tensor_shapes(directory)  # a truncated file is named before transformers sees it
    if ignored := not_read(directory):
        log.info("%s: read are *.safetensors alone, no other weights and no code: %s", directory, ", ".join(ignored))
    dtype = getattr(torch, config.dtype)
    processor = processor_of(directory, architecture)
    if checkpoint.is_quantized(directory):
        if config.outliers.sigma:
            raise ModelError(f"{directory} is quantized already: outliers need model.outliers.sigma=0 here")
        model = _from_pretrained(directory, architecture, dtype).to(device).eval().requires_grad_(False)
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            refuse_non_finite(name, value)
        return LoadedModel(model, processor, architecture)
    model, tensors = _on_meta(directory, architecture, dtype)
    blocks = model.get_submodule(architecture.text_model).layers
    outliers = outlier_scales(blocks, architecture.sites, config.outliers.sigma, config.outliers.seed)
    return LoadedModel(model, processor, architecture, Source(tensors, outliers, device))


def _on_meta(
    directory: Path, architecture: Architecture, dtype: torch.dtype
) -> tuple[PreTrainedModel, Mapping[str, Tensor]]:
    """The model on the meta device, and its tensors by name: transformers' own disk offload, without its hooks.

    Transformers knows how the names in a published checkpoint map to those of its class, and accelerate's mapping
    reads a tensor when it is asked for.
    """
    from accelerate.hooks import remove_hook_from_submodules

    model = _from_pretrained(directory, architecture, dtype, device_map={"": "disk"})
    maps = [getattr(getattr(module, "_hf_hook", None), "weights_map", None) for module in model.modules()]
    tensors = next(found.dataset for found in maps if found is not None)
    remove_hook_from_submodules(model)
    _untie(model, tensors)
    model.eval().requires_grad_(False)
    return model, tensors


def _from_pretrained(
    directory: Path, architecture: Architecture, dtype: torch.dtype, **options: Any
) -> PreTrainedModel:
    try:
        model, report = model_class(architecture).from_pretrained(
            directory, dtype=dtype, use_safetensors=True, output_loading_info=True, **FROM_FILES, **options
        )
    except Exception as error:  # transformers raises whatever it stumbles over in a damaged file
        raise unloadable(directory, error) from error
    if report["missing_keys"]:  # transformers would leave them at random values
        missing = sorted(report["missing_keys"])
        raise ModelError(f"{directory} lacks {len(missing)} weights of the model: {', '.join(missing[:3])}")
    return model


def _untie(model: PreTrainedModel, tensors: Mapping[str, Tensor]) -> None:
    """A head that the files hold beside different embeddings is its own, whatever config.json or the class says.

    InternVL3's published config says nothing and its class ties by default. Transformers decides like this when it
    reads the weights, but not when it leaves them on disk.
    """
    for head, embeddings in model.all_tied_weights_keys.items():
        if head in tensors and not torch.equal(tensors[head], tensors[embeddings]):
            model.config.tie_word_embeddings = False
