"""Integer grids: quantize, dequantize and fake-quantize as pure functions: asymmetric groups, symmetric rows.

The integers, scales and zero points are the product; a fake-quantized tensor is always derived from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST_RANGE = 1e-5
SCALE_BITS = 32  # scales are float32, in the accuracies as in the sizes


@dataclass(frozen=True)
class WeightGrid:
    """How a weight matrix is cut into integers.

    Attributes:
        bits: 2 to 8.
        symmetric: range -2^(b-1) .. 2^(b-1)-1 around zero, or 0 .. 2^b-1 with an integer zero point.
        group_size: input channels that share a scale; ``None``: the whole row (one scale per output channel).
    """

    bits: int
    symmetric: bool
    group_size: int | None

    @property
    def low(self) -> int:
        return -(2 ** (self.bits - 1)) if self.symmetric else 0

    @property
    def high(self) -> int:
        return 2 ** (self.bits - 1) - 1 if self.symmetric else 2**self.bits - 1


@dataclass(frozen=True)
class ActivationGrid:
    """How activations are cut into integers: symmetric, one dynamic scale per token.

    Attributes:
        bits: 2 to 8; integers -2^(b-1) .. 2^(b-1)-1.
        scale: ``largest``: max|x| becomes the largest integer, as the papers have it; ``range``: half the width of the
            range, 2^(b-1) - 1/2, as compressed-tensors and torchao have it, whose format cannot say otherwise.
    """

    bits: int
    scale: str = "largest"

    @property
    def steps(self) -> float:
        """Steps of the grid between 0 and max|x|."""
        return 2 ** (self.bits - 1) - (0.5 if self.scale == "range" else 1)


@dataclass(frozen=True)
class QuantizedWeight:
    """Integers of one linear layer.

    Attributes:
        integers: ``[out, in]``, int8 (symmetric) or uint8 (asymmetric).
        scale: ``[out, groups]`` float32.
        zero_point: ``[out, groups]`` uint8, or ``None`` for a symmetric grid.
    """

    integers: Tensor
    scale: Tensor
    zero_point: Tensor | None

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The fake-quantized weight ``[out, in]``: (integer - zero point) * scale, computed in float32."""
        rows, columns = self.integers.shape
        values = self.integers.float().view(rows, self.scale.shape[1], -1)
        if self.zero_point is not None:
            values = values - self.zero_point.float().unsqueeze(-1)
        return (values * self.scale.unsqueeze(-1)).view(rows, columns).to(dtype)

    def split(self, rows: Sequence[int]) -> list[QuantizedWeight]:
        """One for each of the linears, of so many rows each, whose weights were stacked; they share no storage."""
        zeros = [None] * len(rows) if self.zero_point is None else self.zero_point.split(rows)
        return [
            QuantizedWeight(integers.clone(), scale.clone(), None if zero is None else zero.clone())
            for integers, scale, zero in zip(self.integers.split(rows), self.scale.split(rows), zeros, strict=True)
        ]


def nearest(x: Tensor, low: int, high: int, offset: Tensor | int = 0) -> Tensor:
    """``clamp(round(x) + offset, low, high)``."""
    return torch.round(x).add_(offset).clamp_(low, high)


def weight_parameters(
    weight: Tensor, grid: WeightGrid, whole: Callable[[Tensor, int, int], Tensor] = nearest
) -> tuple[Tensor, Tensor | None]:
    """Scale and zero point of each group.

    Args:
        weight: ``[out, in]``; ``in`` must be a multiple of the group size.
        whole: how the zero point becomes a whole number; ``straight_through`` only to differentiate through it.

    Returns:
        ``scale [out, groups]`` float32 and ``zero_point [out, groups]`` float32 (whole numbers), or ``None``.

    Raises:
        ValueError: the group size does not divide the input channels.
    """
    groups = _grouped(weight, grid)
    if grid.symmetric:
        return groups.abs().amax(-1).clamp(min=SMALLEST_RANGE) / grid.high, None
    low, high = groups.amin(-1), groups.amax(-1)  # four times as fast as aminmax
    scale = (high - low).clamp(min=SMALLEST_RANGE) / grid.high
    return scale, whole(-low / scale, 0, grid.high)


def quantize_weight(weight: Tensor, grid: WeightGrid) -> QuantizedWeight:
    """Round-to-nearest onto the grid: ``clamp(round(w / scale) + zero, low, high)``; ``weight`` is ``[out, in]``."""
    scale, zero = weight_parameters(weight, grid)
    offset = 0 if zero is None else zero.unsqueeze(-1)
    integers = nearest(_grouped(weight, grid) / scale.unsqueeze(-1), grid.low, grid.high, offset).view(weight.shape)
    if zero is None:
        return QuantizedWeight(integers.to(torch.int8), scale, None)
    return QuantizedWeight(integers.to(torch.uint8), scale, zero.to(torch.uint8))


def straight_through(x: Tensor, low: int, high: int, offset: Tensor | int = 0) -> Tensor:
    """``clamp(round(x) + offset, low, high)``, whole as ``offset`` is, with the gradients of ``x + offset`` in between.

    On ``low`` and ``high``, too, where the derivative of torch's own clamp goes by its version; 0 beyond.
    """
    moved, rounded = x + offset, (torch.round(x) + offset).detach()
    within = (low <= rounded) & (rounded <= high)
    return rounded.clamp(low, high) + torch.where(within, moved - moved.detach(), 0)


def fake_quantize_through(weight: Tensor, grid: WeightGrid) -> Tensor:
    """The values of ``quantize_weight(weight).dequantize()``, differentiable: rounding is passed straight through."""
    scale, zero = weight_parameters(weight, grid, straight_through)
    scale, offset = scale.unsqueeze(-1), 0 if zero is None else zero.unsqueeze(-1)
    integers = straight_through(_grouped(weight, grid) / scale, grid.low, grid.high, offset)
    return ((integers - offset) * scale).view(weight.shape)


def fake_quantize_activation(x: Tensor, grid: ActivationGrid) -> Tensor:
    """Symmetric, dynamic, one scale per token (the last dimension): ``[..., channels]`` to the same shape and dtype.

    Gradients pass the rounding straight through.
    """
    high = 2 ** (grid.bits - 1) - 1
    values = x.float()
    scale = values.abs().amax(-1, keepdim=True).clamp(min=SMALLEST_RANGE) / grid.steps
    steps = values / scale
    if steps.requires_grad:
        return (straight_through(steps, -high - 1, high) * scale).to(x.dtype)
    return steps.round_().clamp_(-high - 1, high).mul_(scale).to(x.dtype)  # the same values, sooner and in one copy


def packed_bytes(shape: tuple[int, int], grid: WeightGrid) -> int:
    """Bytes of a packed ``[out, in]`` weight: integers and zero points in ``bits`` bits, scales in 32 bits."""
    rows, columns = shape
    groups = rows * (columns // (grid.group_size or columns))
    bits = rows * columns * grid.bits + groups * (SCALE_BITS + (0 if grid.symmetric else grid.bits))
    return -(-bits // 8)


def _grouped(weight: Tensor, grid: WeightGrid) -> Tensor:
    rows, columns = weight.shape
    size = grid.group_size or columns
    if columns % size:
        raise ValueError(f"group size {size} does not divide {columns} input channels")
    return weight.float().reshape(rows, columns // size, size)
