"""A bit setting (``conf/quant``) as numerics: the weight grid, the activation bits and which linears they apply to."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qig.config.schema import Quant
from qig.quantization.grid import ActivationGrid, QuantizedWeight, WeightGrid, fake_quantize_through, quantize_weight
from qig.quantization.linear import FakeQuantLinear, QuantizedLinear


@dataclass(frozen=True)
class Setting:
    weights: WeightGrid
    activations: ActivationGrid | None
    linears: re.Pattern[str]

    @classmethod
    def of(cls, quant: Quant) -> Setting:
        weights = quant.weights
        return cls(
            WeightGrid(weights.bits, weights.symmetric, weights.group_size),
            ActivationGrid(quant.activations.bits, quant.activations.scale) if quant.activations else None,
            re.compile(quant.linears),
        )

    def selected(self, block: nn.Module) -> dict[str, nn.Linear]:
        """The linears of a decoder block that the pattern names in full, by their name inside the block."""
        return {
            name: module
            for name, module in block.named_modules()
            if isinstance(module, nn.Linear) and self.linears.fullmatch(name)
        }

    def weight_only(self, linear: nn.Linear) -> FakeQuantLinear:
        """``f(., w_q)``: weights on the grid, activations left alone (the quantized branch of QIG)."""
        weight = quantize_weight(linear.weight, self.weights).dequantize(linear.weight.dtype)
        return FakeQuantLinear(weight, linear.bias)

    def nearest(self, linear: nn.Linear) -> QuantizedLinear:
        """The quantized layer by round-to-nearest, activations on their grid."""
        return self.rounded(quantize_weight(linear.weight, self.weights), linear.bias, linear.weight.dtype)

    def equalized(self, linear: nn.Linear, scale: Tensor) -> FakeQuantLinear:
        """``Q_W(W s) Q_X(x / s)``, the candidate of the equalization search; ``scale`` is ``[in]`` float32."""
        return self._scaled(quantize_weight(linear.weight.float() * scale, self.weights).dequantize(), linear, scale)

    def equalized_through(self, linear: nn.Linear, scale: Tensor) -> FakeQuantLinear:
        """The same, differentiable with respect to ``scale``: rounding is passed straight through."""
        return self._scaled(fake_quantize_through(linear.weight.float() * scale, self.weights), linear, scale)

    def _scaled(self, weight: Tensor, linear: nn.Linear, scale: Tensor) -> FakeQuantLinear:
        dtype = linear.weight.dtype
        if self.activations is None:  # the division moves into the weight: the input needs no work
            return FakeQuantLinear((weight / scale).to(dtype), linear.bias)
        return FakeQuantLinear(weight.to(dtype), linear.bias, self.activations, scale.to(dtype))

    def rounded(self, quantized: QuantizedWeight, bias: Tensor | None, dtype: torch.dtype) -> QuantizedLinear:
        """The layer of the quantized model for integers that a rounding method found."""
        return QuantizedLinear(quantized, bias, self.activations, dtype)

    def derived(self, quantized: QuantizedWeight, bias: Tensor | None, dtype: torch.dtype) -> FakeQuantLinear:
        """The same layer without its integers, which need not stay in memory to compute with."""
        return FakeQuantLinear(quantized.dequantize(dtype), bias, self.activations)
