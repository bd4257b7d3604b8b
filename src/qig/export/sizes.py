"""How many bytes an exported checkpoint takes on disk, beside its source with 16 bits a number."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from qig.models.files import tensor_shapes

SCALE = ".weight_scale"


@dataclass(frozen=True)
class Size:
    """Bytes of tensors in the files, without the files' headers, and what the same takes with two bytes a number."""

    stored: int
    sixteen_bit: int

    @property
    def ratio(self) -> float:
        return self.stored / self.sixteen_bit


def sizes(folder: Path, source: Path) -> dict[str, Size]:
    """``quantized linears`` (integers, scales, zero points and shapes, no biases) and ``all weights``.

    Args:
        folder: the exported checkpoint.
        source: the 16-bit checkpoint that it was made from.
    """
    stored, shapes = _stored(folder), tensor_shapes(source)
    linears = [name.removesuffix(SCALE) for name in stored if name.endswith(SCALE)]
    packed = sum(size for name, size in stored.items() if name.rpartition(".weight")[0] in linears)
    dense = sum(math.prod(shapes[f"{linear}.weight"]) for linear in linears)
    return {
        "quantized linears": Size(packed, 2 * dense),
        "all weights": Size(sum(stored.values()), 2 * sum(math.prod(shape) for shape in shapes.values())),
    }


def _stored(folder: Path) -> dict[str, int]:
    bytes_of = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in sorted(file.keys()):
                tensor = file.get_slice(name)
                bits = int(re.search(r"\d+", tensor.get_dtype())[0])
                bytes_of[name] = math.prod(tensor.get_shape()) * bits // 8
    return bytes_of
