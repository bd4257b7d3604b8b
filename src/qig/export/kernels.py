"""The integers of an export in torchao's tensors, whose kernels multiply with them on CPU; nothing is rounded anew.

torchao finds integers of its own when it quantizes. Here its tensors are given those of the export: they are the same
numbers in another layout. The int4 kernel takes a zero point in the unit of weights, ``(8 - z) * scale``, and both in
the data type of the activations. The int8 kernel quantizes activations by max|x| / 127.5, as compressed-tensors does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from qig.models.architectures import architecture_of
from qig.models.checkpoint import model_type

if TYPE_CHECKING:
    from compressed_tensors.quantization import QuantizationScheme
    from transformers import PreTrainedModel

INT4_GROUPS = (32, 64, 128)


def kernel_of(scheme: QuantizationScheme) -> str | None:
    """Name of the kernel that takes the scheme's integers; ``None`` if torchao has none for them on CPU."""
    weights = scheme.weights
    if scheme.input_activations is None:
        fits = weights.num_bits == 4 and not weights.symmetric and weights.group_size in INT4_GROUPS
        return "int4" if fits else None
    return "int8" if weights.group_size is None else None


def exported_scheme(folder: Path) -> QuantizationScheme:
    """The one scheme of an exported checkpoint."""
    from compressed_tensors.quantization import QuantizationConfig

    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    (scheme,) = QuantizationConfig.model_validate(config).config_groups.values()
    return scheme


@torch.no_grad()
def use_kernels(model: PreTrainedModel, folder: Path) -> None:
    """Replace the weights of the quantized linears of a dense ``model`` by torchao tensors of the folder's integers."""
    scheme = exported_scheme(folder)
    make = {"int4": _int4, "int8": _int8}[kernel_of(scheme)]
    blocks = model.get_submodule(architecture_of(model_type(folder)).text_model).layers
    stored: dict[str, dict[str, Tensor]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        for name, value in load_file(file).items():
            linear, _, part = name.rpartition(".")
            stored.setdefault(linear, {})[part] = value
    for name, tensors in stored.items():
        if "weight_scale" in tensors:
            index, _, inside = name.rpartition("layers.")[2].partition(".")
            linear = blocks[int(index)].get_submodule(inside)
            linear.weight = nn.Parameter(make(tensors, scheme, linear.weight.dtype), requires_grad=False)


def _int4(stored: Mapping[str, Tensor], scheme: QuantizationScheme, dtype: torch.dtype) -> Tensor:
    from compressed_tensors.compressors.pack_quantized import unpack_from_int32
    from torchao.prototype.quantization.int4.int4_opaque_tensor import Int4OpaqueTensor

    shape, scale = torch.Size(stored["weight_shape"].tolist()), stored["weight_scale"]
    integers = unpack_from_int32(stored["weight_packed"], 4, shape).int() + 8
    zero = unpack_from_int32(stored["weight_zero_point"], 4, scale.shape, packed_dim=0).int() + 8
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(integers, 1)
    return Int4OpaqueTensor(packed, scale_and_zero(scale, zero).to(dtype), [1, scheme.weights.group_size], shape)


def scale_and_zero(scale: Tensor, zero_point: Tensor) -> Tensor:
    """What the int4 kernel has for each group, ``[groups, out, 2]``: its weights are ``(i - 8) * scale + zero``.

    Args:
        scale: ``[out, groups]``.
        zero_point: z of ``(i - z) * scale``, 0 to 15, ``[out, groups]``.
    """
    return torch.stack([scale, (8 - zero_point) * scale], dim=-1).transpose(0, 1).contiguous()


def _int8(stored: Mapping[str, Tensor], scheme: QuantizationScheme, dtype: torch.dtype) -> Tensor:
    from torchao.quantization.granularity import PerRow
    from torchao.quantization.quantize_.workflows.int8.int8_tensor import Int8Tensor, QuantizeTensorToInt8Kwargs

    integers = stored["weight"]
    activations = QuantizeTensorToInt8Kwargs(granularity=PerRow())
    return Int8Tensor(integers, stored["weight_scale"], [1, integers.shape[1]], dtype, act_quant_kwargs=activations)
