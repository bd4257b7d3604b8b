"""Scenes: real handwritten digits in five ink colours on a 3x3 grid.

Every image is composed from scikit-learn's ``load_digits`` (1,797 scans of 8x8 pixels). The scans are divided once
into a training and a test pool, so that no test image contains a scan that training has seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from qig.errors import DataError, choices

GRID = 3
CELL_SIZE = 16
DIGIT_SIZE = 14
IMAGE_SIZE = GRID * CELL_SIZE

CELLS = tuple(f"r{row}c{column}" for row in range(1, GRID + 1) for column in range(1, GRID + 1))
COLORS = ("red", "green", "blue", "yellow", "purple")
INKS = np.array([[230, 40, 40], [40, 200, 60], [60, 90, 250], [235, 215, 40], [190, 60, 220]], np.float32)
EMPTY = -1

TRAIN_SHARE = 0.75
NOISE = 12.0
"""Standard deviation of the pixel noise, in grey levels of 0 to 255."""


@dataclass(frozen=True)
class DigitPool:
    """The scans of one split: ``images`` [n, 14, 14] ink coverage in 0 to 1, ``labels`` [n] digits 0 to 9."""

    images: np.ndarray
    labels: np.ndarray

    @property
    def by_digit(self) -> list[np.ndarray]:
        return [np.flatnonzero(self.labels == digit) for digit in range(10)]


@dataclass(frozen=True, eq=False)
class Scene:
    """One picture and what it shows.

    ``digits`` [9] holds 0 to 9 or -1 for an empty cell, ``colors`` [9] an index into ``COLORS`` or -1, both in
    reading order; no digit occurs twice. ``image`` [48, 48, 3] is uint8 RGB.
    """

    digits: np.ndarray
    colors: np.ndarray
    image: np.ndarray

    def pil(self) -> Image.Image:
        return Image.fromarray(self.image)

    @property
    def filled(self) -> np.ndarray:
        """Indices of the cells that hold a digit."""
        return np.flatnonzero(self.digits != EMPTY)


def _enlarge(scans: np.ndarray) -> np.ndarray:
    """Bilinear enlargement of scans [n, 8, 8] of 0 to 16 to coverages [n, 14, 14] of 0 to 1.

    Interpolation between pixel centres, clamped at the border. The weights are multiples of 1/28, so integers carry
    the sums and every machine gets the same bytes.
    """
    source = scans.shape[1]
    position = np.clip((2 * np.arange(DIGIT_SIZE) + 1) * source - DIGIT_SIZE, 0, 2 * DIGIT_SIZE * (source - 1))
    low = np.minimum(position // (2 * DIGIT_SIZE), source - 2)
    weights = np.zeros((DIGIT_SIZE, source), np.int64)
    weights[np.arange(DIGIT_SIZE), low + 1] = position - 2 * DIGIT_SIZE * low
    weights[np.arange(DIGIT_SIZE), low] = 2 * DIGIT_SIZE - weights[np.arange(DIGIT_SIZE), low + 1]
    sums = weights @ scans.astype(np.int64) @ weights.T
    return (sums / (16 * (2 * DIGIT_SIZE) ** 2)).astype(np.float32)


@lru_cache(maxsize=2)
def digit_pool(split: str) -> DigitPool:
    """The scans of ``train`` (1,347) or ``test`` (450), enlarged to 14x14."""
    from sklearn.datasets import load_digits

    if split not in ("train", "test"):
        raise DataError(choices(split, ("train", "test"), "split"))
    scans = load_digits()
    order = np.random.default_rng(0).permutation(len(scans.target))
    border = int(TRAIN_SHARE * len(order))
    chosen = order[:border] if split == "train" else order[border:]
    images = _enlarge(scans.images[chosen])
    images.flags.writeable = False
    return DigitPool(images=images, labels=scans.target[chosen])


class SceneSampler:
    """Draws scenes from one split. The same split and seed give the same scenes, byte for byte.

    In 60% of the scenes three to five cells are filled and all colours differ; in the others three to eight cells
    are filled with two to five colours, so that colours repeat and can be counted.
    """

    def __init__(self, split: str, seed: int | tuple[int, ...]) -> None:
        self.pool = digit_pool(split)
        self.rng = np.random.default_rng(seed)
        self._by_digit = self.pool.by_digit

    def sample(self) -> Scene:
        rng = self.rng
        distinct = rng.random() < 0.6
        count = int(rng.integers(3, 6 if distinct else 9))
        cells = rng.permutation(GRID * GRID)[:count]
        digits = np.full(GRID * GRID, EMPTY)
        colors = np.full(GRID * GRID, EMPTY)
        digits[cells] = rng.permutation(10)[:count]
        palette = rng.permutation(len(COLORS))
        colors[cells] = palette[:count] if distinct else rng.choice(palette[: rng.integers(2, 6)], count)
        return Scene(digits=digits, colors=colors, image=self._draw(digits, colors))

    def _draw(self, digits: np.ndarray, colors: np.ndarray) -> np.ndarray:
        rng = self.rng
        image = np.empty((IMAGE_SIZE, IMAGE_SIZE, 3), np.float32)
        image[:] = rng.uniform(0, 50, 3)
        for cell in np.flatnonzero(digits != EMPTY):
            coverage = self.pool.images[rng.choice(self._by_digit[digits[cell]])][..., None]
            top, left = rng.integers(0, CELL_SIZE - DIGIT_SIZE + 1, 2) + CELL_SIZE * np.array(divmod(int(cell), GRID))
            ink = INKS[colors[cell]] * np.float32(rng.uniform(0.8, 1.0))
            window = image[top : top + DIGIT_SIZE, left : left + DIGIT_SIZE]
            window[:] = window * (1 - coverage) + ink * coverage
        image += rng.standard_normal(image.shape, dtype=np.float32) * np.float32(NOISE)
        return np.clip(image, 0, 255).astype(np.uint8)
