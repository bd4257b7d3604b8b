"""The integers of an export in torchao's tensors, whose kernels multiply with them on CPU; nothing is rounded anew.

torchao finds integers of its own when it quantizes. Here its tensors are given those of the export: they are the same
numbers in another layout. The int4 kernel takes a zero point in the unit of weights, ``(8 - z) * scale``, and both in
the data type of the activations. The int8 kernel quantizes activations by max|x| / 127.5, as compressed-tensors does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from compressed_tensors.quantization import QuantizationScheme

INT4_GROUPS = (32, 64, 128)


def kernel_of(scheme: QuantizationScheme) -> str | None:
    """Name of the kernel that takes the scheme's integers; ``None`` if torchao has none for them on CPU."""
    weights = scheme.weights
    if scheme.input_activations is None:
        fits = weights.num_bits == 4 and not weights.symmetric and weights.group_size in INT4_GROUPS
        return "int4" if fits else None
    return "int8" if weights.group_size is None else None


@torch.no_grad()
def use_kernel(linear: nn.Linear, stored: Mapping[str, Tensor], scheme: QuantizationScheme) -> None:
    """Replace the linear's weight by a torchao tensor of the ``stored`` integers (names as in the export's files)."""
    make = {"int4": _int4, "int8": _int8}[kernel_of(scheme)]
    linear.weight = nn.Parameter(make(stored, scheme, linear.weight.dtype), requires_grad=False)


def _int4(stored: Mapping[str, Tensor], scheme: QuantizationScheme, dtype: torch.dtype) -> Tensor:
    from compressed_tensors.compressors.pack_quantized import unpack_from_int32
    from torchao.prototype.quantization.int4.int4_opaque_tensor import Int4OpaqueTensor

    shape, scale = torch.Size(stored["weight_shape"].tolist()), stored["weight_scale"]
    integers = unpack_from_int32(stored["weight_packed"], 4, shape).int() + 8
    zero = unpack_from_int32(stored["weight_zero_point"], 4, scale.shape, packed_dim=0).float()  # counted from 8
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(integers, 1)
    scale_and_zero = torch.stack([scale, -zero * scale], dim=-1).transpose(0, 1).contiguous().to(dtype)
    return Int4OpaqueTensor(packed, scale_and_zero, [1, scheme.weights.group_size], shape)


def _int8(stored: Mapping[str, Tensor], scheme: QuantizationScheme, dtype: torch.dtype) -> Tensor:
    from torchao.quantization.granularity import PerRow
    from torchao.quantization.quantize_.workflows.int8.int8_tensor import Int8Tensor, QuantizeTensorToInt8Kwargs

    integers = stored["weight"]
    activations = QuantizeTensorToInt8Kwargs(granularity=PerRow())
    return Int8Tensor(integers, stored["weight_scale"], [1, integers.shape[1]], dtype, act_quant_kwargs=activations)
