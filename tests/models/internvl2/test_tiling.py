"""Dynamic tiling: how many tiles, in which order, and their pixels, as the published functions make them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from models.internvl2.conftest import converted_into
from oracles import internvl2 as oracle

TILE = 16


def gradient(width: int, height: int) -> Image.Image:
    """Smooth, and different in each corner, so that resampling hardly matters and order does."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return Image.fromarray((255 * np.stack([x, y, (x + y) / 2], -1)).astype(np.uint8))


def published_tiles(image: Image.Image, least: int, most: int) -> torch.Tensor:
    """``[tiles, 3, 16, 16]``: resized to the grid, cut row by row, the thumbnail last, ImageNet's normalisation."""
    columns, rows = oracle.grid(*image.size, least, most, TILE)
    resized = image.resize((columns * TILE, rows * TILE), Image.Resampling.BICUBIC)
    cuts = [
        resized.crop((c * TILE, r * TILE, (c + 1) * TILE, (r + 1) * TILE)) for r in range(rows) for c in range(columns)
    ]
    if len(cuts) > 1:
        cuts.append(image.resize((TILE, TILE), Image.Resampling.BICUBIC))
    pixels = np.stack([np.asarray(cut) for cut in cuts]) / 255
    normalised = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return torch.tensor(normalised).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def image_processor(published):
    return published("internlm2").processor().image_processor


@pytest.mark.parametrize("size", [(16, 16), (17, 40), (64, 48), (200, 20), (20, 200), (48, 32), (100, 99)])
def test_tiles_and_their_pixels(image_processor, size):
    image = gradient(*size)
    found = image_processor([image], return_tensors="pt")
    expected = published_tiles(image, 1, 12)
    assert found["num_patches"].tolist() == [oracle.tile_count(*size, 1, 12, TILE)] == [len(expected)]
    # Within two of 255 grey levels: torchvision's bicubic filter is not Pillow's to the last bit.
    assert float((found["pixel_values"] - expected).abs().max()) < 2 / 255 / 0.224


@given(st.integers(4, 400), st.integers(4, 400))
def test_number_of_tiles(image_processor, width, height):
    options = {"crop_to_patches": True, "min_patches": 1, "max_patches": 12}
    found = image_processor.get_number_of_image_patches(height, width, options)
    assert found == oracle.tile_count(width, height, 1, 12, TILE)


def test_the_tie_rule_is_reached():
    assert oracle.grid(16, 16, 1, 12, TILE) == (1, 1) and oracle.grid(64, 64, 1, 12, TILE) == (3, 3)


def test_limits_of_the_configuration(tmp_path):
    case = converted_into(tmp_path, min_dynamic_patch=2, max_dynamic_patch=5)
    for size, tiles in {(16, 16): 5, (160, 16): 6}.items():
        found = case.processor()(images=[gradient(*size)], text="<IMG_CONTEXT>", return_tensors="pt")
        assert len(found["pixel_values"]) == oracle.tile_count(*size, 2, 5, TILE) == tiles


def test_without_dynamic_tiling_every_image_is_one_tile(tmp_path):
    case = converted_into(tmp_path, dynamic_image_size=False, use_thumbnail=False)
    found = case.processor()(images=[gradient(160, 32)], text="<IMG_CONTEXT>", return_tensors="pt")
    assert len(found["pixel_values"]) == 1
