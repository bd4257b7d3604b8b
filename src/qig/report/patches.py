"""Which part of the image each vision token stands for: one description of the token order a model family.

A family lays its tokens out as one or more rasters over the whole image, read row by row, and may put a token that
ends the line behind each row. Adding a family is a row of ``LAYOUTS``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qig.errors import DataError, ModelError, choices

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import ProcessorMixin

Grid = Callable[["ProcessorMixin", "Image"], tuple[int, int]]


@dataclass(frozen=True)
class Raster:
    """``grid(processor, image)`` gives rows and columns; ``line_ends``: a token behind each row shows no patch."""

    name: str
    grid: Grid
    line_ends: bool = False


@dataclass(frozen=True)
class Patch:
    """A vision token's place in the image, as fractions of its height and width from the upper left corner."""

    token: int
    raster: str
    top: float
    left: float
    bottom: float
    right: float


def merged_grid(processor: ProcessorMixin, image: Image) -> tuple[int, int]:
    """Qwen2-VL: the image processor's patches, ``merge_size`` by ``merge_size`` of which are one token."""
    images = processor.image_processor
    _, rows, columns = images(images=[image], return_tensors="pt")["image_grid_thw"][0].tolist()
    return rows // images.merge_size, columns // images.merge_size


def square(attribute: str) -> Grid:
    """A square of as many tokens as the processor's ``attribute`` says."""

    def grid(processor: ProcessorMixin, _image: Image) -> tuple[int, int]:
        side = math.isqrt(getattr(processor, attribute))
        return side, side

    return grid


LAYOUTS: dict[str, tuple[Raster, ...]] = {
    "qwen2_vl": (Raster("image", merged_grid),),
    "llava_onevision": (
        Raster("whole image", square("num_image_tokens")),
        Raster("tile", square("num_image_tokens"), line_ends=True),
    ),
    "internvl": (Raster("image", square("image_seq_length")),),
}


def patches(processor: ProcessorMixin, model_type: str, image: Image, tokens: int) -> list[Patch]:
    """The place of each of the ``tokens`` vision tokens of a sample with one image; tokens that end a line have none.

    Raises:
        ModelError: no row for the family.
        DataError: the image has another number of tokens than the layout says (several images, or several tiles).
    """
    if model_type not in LAYOUTS:
        raise ModelError(choices(model_type, LAYOUTS, "layout of vision tokens"))
    found, start = [], 0
    for raster in LAYOUTS[model_type]:
        rows, columns = raster.grid(processor, image)
        stride = columns + raster.line_ends
        found += [Patch(start + row * stride + column, raster.name, row / rows, column / columns, (row + 1) / rows,
                        (column + 1) / columns) for row in range(rows) for column in range(columns)]
        start += rows * stride
    if start != tokens:
        raise DataError(f"the place of {tokens} vision tokens of {model_type} is not known: the layout of one image in "
                        f"one tile has {start}")
    return found
