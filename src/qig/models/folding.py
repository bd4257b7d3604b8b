"""Folding an equalization scale into the weights: exact in full precision (METHOD section 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qig.models.architectures import Site


def foldable(block: nn.Module, site: Site) -> bool:
    """Whether the producer has one output channel per input channel of the consumers.

    It does not at ``attn_out`` under grouped-query attention: v_proj is narrower than o_proj.
    """
    producer = block.get_submodule(site.producer)
    return producer.weight.shape[0] == block.get_submodule(site.consumers[0]).in_features


@torch.no_grad()
def fold(block: nn.Module, site: Site, scale: Tensor) -> None:
    """Multiply the consumers' input channels by ``scale [channels]`` and divide the producer's output by it, in place.

    Raises:
        ValueError: the scale's length is not the producer's number of output channels, or an entry is not positive.
    """
    producer = block.get_submodule(site.producer)
    if scale.shape != producer.weight.shape[:1]:
        raise ValueError(f"{site.name}: scale of shape {tuple(scale.shape)}, producer {tuple(producer.weight.shape)}")
    if not bool(((scale > 0) & scale.isfinite()).all()):
        raise ValueError(f"{site.name}: scales must be positive and finite")
    scale = scale.to(producer.weight.device, torch.float32)
    per_channel = scale.view(-1, *[1] * (producer.weight.dim() - 1))
    _assign(producer.weight, producer.weight.float() / per_channel)
    if getattr(producer, "bias", None) is not None:
        _assign(producer.bias, producer.bias.float() / scale)
    for name in site.consumers:
        weight = block.get_submodule(name).weight
        _assign(weight, weight.float() * scale)


def _assign(parameter: Tensor, value: Tensor) -> None:
    parameter.copy_(value.to(parameter.dtype))
