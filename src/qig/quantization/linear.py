"""Fake-quantized linear layers and their temporary or lasting place in a module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from qig.quantization.grid import ActivationGrid, QuantizedWeight, fake_quantize_activation


class Known(nn.Module):
    """Takes the place of a linear whose output is there already."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> Tensor:
        return self.output


class FakeQuantLinear(nn.Module):
    """``y = W^ Q_X(x / s) + b`` with a dequantized weight; what the integers would compute, in floating point.

    Args:
        weight: ``[out, in]``, already dequantized.
        bias: ``[out]`` or ``None``.
        activations: the dynamic per-token grid of the inputs; ``None`` leaves them alone.
        divisor: ``[in]``, the equalization scale that is not folded into the producer; ``None`` if it is.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        activations: ActivationGrid | None = None,
        divisor: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.register_buffer("divisor", divisor, persistent=False)
        self.activations = activations
        self.out_features, self.in_features = weight.shape

    def forward(self, x: Tensor) -> Tensor:
        if self.divisor is not None:
            x = x / self.divisor
        if self.activations is not None:
            x = fake_quantize_activation(x, self.activations)
        return functional.linear(x, self.weight, self.bias)


class QuantizedLinear(FakeQuantLinear):
    """A linear layer that keeps its integers; the floating-point weight is derived from them."""

    def __init__(
        self, quantized: QuantizedWeight, bias: Tensor | None, activations: ActivationGrid | None, dtype: torch.dtype
    ) -> None:
        super().__init__(quantized.dequantize(dtype), bias, activations)
        self.register_buffer("integers", quantized.integers)
        self.register_buffer("scale", quantized.scale)
        self.register_buffer("zero_point", quantized.zero_point)

    @property
    def quantized(self) -> QuantizedWeight:
        return QuantizedWeight(self.integers, self.scale, self.zero_point)


def replace(root: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """Put ``module`` at the dotted ``name`` under ``root``; returns what stood there."""
    parent_name, _, leaf = name.rpartition(".")
    parent = root.get_submodule(parent_name)
    old = getattr(parent, leaf)
    setattr(parent, leaf, module)
    return old


@contextmanager
def substituted(root: nn.Module, replacements: Mapping[str, nn.Module]) -> Iterator[None]:
    """Within the context the named submodules of ``root`` are replaced; the originals return whatever happens."""
    originals = {}
    try:
        for name, module in replacements.items():
            originals[name] = replace(root, name, module)
        yield
    finally:
        for name, module in originals.items():
            replace(root, name, module)
