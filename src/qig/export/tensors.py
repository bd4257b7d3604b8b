"""The tensors of the exported checkpoint, one after the other; never the whole model in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from qig.export.names import PARTS, block_prefix, linears_of, stage_blocks, untouched_linears
from qig.export.scheme import scheme_of
from qig.export.source import Source
from qig.models.files import shards, tensor_shapes
from qig.quantization.grid import QuantizedWeight

if TYPE_CHECKING:
    from compressed_tensors.quantization import QuantizationScheme


@dataclass(frozen=True)
class Plan:
    """Which tensors the export has. ``prefix``: the checkpoint's name before ``layers.N.``; ``ignore``: see names."""

    source: Source
    scheme: QuantizationScheme
    prefix: str
    ignore: list[str]

    @classmethod
    def of(cls, source: Source, widen: bool = False) -> Plan:
        """Raises QigError if the setting or the checkpoint does not allow an export, or not one that is widened."""
        scheme = scheme_of(source.quant, widen)
        names = tensor_shapes(source.checkpoint)
        blocks = stage_blocks(source.stage)
        return cls(source, scheme, block_prefix(names, blocks), untouched_linears(source.checkpoint, blocks, names))

    @property
    def integer_bits(self) -> int:
        """The bits that the run's integers use; the scheme names those of their container."""
        return self.source.quant["weights"]["bits"]

    @property
    def widened(self) -> bool:
        return self.integer_bits != self.scheme.weights.num_bits

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Name and value: first what the run left alone, as the checkpoint has it, then block by block."""
        blocks = f"{self.prefix}layers."
        for file in shards(self.source.checkpoint):
            with safe_open(file, framework="pt") as tensors:
                for name in sorted(tensors.keys()):
                    if not name.startswith(blocks):
                        yield name, tensors.get_tensor(name)
        for index, file in enumerate(tqdm(stage_blocks(self.source.stage), desc="blocks", disable=None)):
            yield from ((f"{blocks}{index}.{name}", value) for name, value in self._block(load_file(file)))

    def _block(self, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        linears = linears_of(tensors)
        for name in linears:
            quantized = QuantizedWeight(*(tensors.get(name + part) for part in PARTS))
            yield from ((f"{name}.{part}", value) for part, value in compressed(quantized, self.scheme).items())
        for name in sorted(tensors):
            if not name.endswith(PARTS):
                yield name, tensors[name]


def compressed(quantized: QuantizedWeight, scheme: QuantizationScheme) -> dict[str, Tensor]:
    """The linear's tensors as compressed-tensors stores them, packed by that library.

    It takes a weight and a scale and divides; since the weight is (integer - zero point) * scale to within a rounding
    of float32, what it finds are the integers. It counts from -2^(b-1), b being the scheme's bits, where asymmetric
    grids here count from 0; what is packed are our integers, also where b is more than they need.
    """
    from compressed_tensors.compressors import BaseCompressor

    state = {"weight": quantized.dequantize(), "weight_scale": quantized.scale}
    if quantized.zero_point is not None:
        offset = 2 ** (scheme.weights.num_bits - 1)
        state["weight_zero_point"] = (quantized.zero_point.to(torch.int16) - offset).to(torch.int8)
    return BaseCompressor.get_value_from_registry(scheme.format).compress(state, scheme)
