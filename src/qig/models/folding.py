"""Folding an equalization scale into the weights: exact in full precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qig.errors import ModelError
from qig.models.architectures import Site

ROUNDING = 2**-6  # more than what weights and outputs of 8 binary digits lose


def foldable(block: nn.Module, site: Site, share: bool = False) -> bool:
    """Whether the producer can absorb 1/s.

    It needs one output channel per input channel of the consumers. At ``attn_out`` under grouped-query attention
    v_proj is narrower than o_proj: then only a scale that the query heads of a group ``share`` is legal.
    """
    produced, consumed = _widths(block, site)
    return produced == consumed or (share and consumed % produced == 0 and hasattr(_attention(block, site), "head_dim"))


def shared(block: nn.Module, site: Site, values: Tensor) -> Tensor:
    """``values [channels]``; where query heads are grouped, their mean over the heads of each group."""
    produced, consumed = _widths(block, site)
    if produced == consumed:
        return values
    heads = values.view(-1, consumed // produced, _attention(block, site).head_dim)
    return heads.mean(1, keepdim=True).expand_as(heads).reshape(-1)


@torch.no_grad()
def fold(block: nn.Module, site: Site, scale: Tensor) -> None:
    """Multiply the consumers' input channels by ``scale [channels]`` and divide the producer's output by it, in place.

    Raises:
        ValueError: the scale does not fit the producer, is not shared where heads are grouped, or is not positive and
            finite.
        ModelError: the producer, a norm, does not multiply by its weight as it is (some multiply by 1 + weight).
    """
    producer = block.get_submodule(site.producer)
    scale = scale.to(producer.weight.device, torch.float32)
    produced, consumed = _widths(block, site)
    if scale.shape != (consumed,):
        raise ValueError(f"{site.name}: scale of shape {tuple(scale.shape)}, expected ({consumed},)")
    if not bool(((scale > 0) & torch.isfinite(scale)).all()):
        raise ValueError(f"{site.name}: scales must be positive and finite")
    divisor = scale
    if produced != consumed:
        if not foldable(block, site, share=True) or not torch.allclose(shared(block, site, scale), scale):
            raise ValueError(f"{site.name}: the producer's {produced} channels need a scale shared by {consumed}")
        head = _attention(block, site).head_dim
        divisor = scale.view(-1, consumed // produced, head)[:, 0].reshape(-1)
    probe, is_norm = torch.linspace(-1, 1, produced).to(producer.weight), not isinstance(producer, nn.Linear)
    expected = producer(probe).float() / divisor if is_norm else None
    per_channel = divisor.view(-1, *[1] * (producer.weight.dim() - 1))
    _assign(producer.weight, producer.weight.float() / per_channel)
    if getattr(producer, "bias", None) is not None:
        _assign(producer.bias, producer.bias.float() / divisor)
    if is_norm and bool(((producer(probe).float() - expected).abs() > _lost(producer, expected)).any()):
        raise ModelError(
            f"{site.producer} ({type(producer).__name__}) is no norm times its weight: no scale can be folded into it"
        )
    for name in site.consumers:
        weight = block.get_submodule(name).weight
        _assign(weight, weight.float() * scale)


def _widths(block: nn.Module, site: Site) -> tuple[int, int]:
    return block.get_submodule(site.producer).weight.shape[0], block.get_submodule(site.consumers[0]).in_features


def _attention(block: nn.Module, site: Site) -> nn.Module:
    return block.get_submodule(site.producer.rpartition(".")[0])


def _lost(norm: nn.Module, output: Tensor) -> Tensor:
    """What rounding may change of an output, a product with a bias added to it."""
    bias = getattr(norm, "bias", None)
    size = output.abs() if bias is None else output.abs() + bias.float().abs()
    return ROUNDING * size + torch.finfo(norm.weight.dtype).tiny


def _assign(parameter: Tensor, value: Tensor) -> None:
    parameter.copy_(value.to(parameter.dtype))
