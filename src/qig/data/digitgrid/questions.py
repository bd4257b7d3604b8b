"""The eleven question types. A question is asked only where the scene has exactly one right answer, of one word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qig.errors import DataError, choices

from .scenes import CELLS, COLORS, EMPTY, GRID, Scene

MAX_COUNT = 4


@dataclass(frozen=True)
class Question:
    """``text`` in words of the vocabulary, ``answer`` one word, ``type`` one of ``QUESTION_TYPES``."""

    text: str
    answer: str
    type: str


def digit_word(scene: Scene, cell: int) -> str:
    return "none" if scene.digits[cell] == EMPTY else str(scene.digits[cell])


def color_word(scene: Scene, cell: int) -> str:
    return "none" if scene.colors[cell] == EMPTY else COLORS[scene.colors[cell]]


def cells_of_unique_color(scene: Scene) -> list[int]:
    """Filled cells whose colour occurs once."""
    return [int(cell) for cell in scene.filled if np.sum(scene.colors == scene.colors[cell]) == 1]


def _pick(options, rng: np.random.Generator):
    return options[int(rng.integers(len(options)))]


def _any_cell(scene: Scene, rng: np.random.Generator) -> int:
    """Mostly a filled cell, so that ``none`` stays a rare answer."""
    return int(_pick(scene.filled, rng)) if rng.random() < 0.85 else int(rng.integers(len(CELLS)))


def _left_neighbours(scene: Scene) -> list[int]:
    """Cells, filled or not, with a filled cell to their right."""
    return [k for k in range(len(CELLS)) if k % GRID < GRID - 1 and scene.digits[k + 1] != EMPTY]


def _digit_at_cell(scene, rng):
    cell = _any_cell(scene, rng)
    return f"what digit is at {CELLS[cell]} ?", digit_word(scene, cell)


def _color_at_cell(scene, rng):
    cell = _any_cell(scene, rng)
    return f"what color is at {CELLS[cell]} ?", color_word(scene, cell)


def _digit_of_color(scene, rng):
    if not (cells := cells_of_unique_color(scene)):
        return None
    cell = _pick(cells, rng)
    return f"what digit is {color_word(scene, cell)} ?", digit_word(scene, cell)


def _color_of_digit(scene, rng):
    cell = _pick(scene.filled, rng)
    return f"what color is the {digit_word(scene, cell)} ?", color_word(scene, cell)


def _cell_of_digit(scene, rng):
    cell = _pick(scene.filled, rng)
    return f"where is the {digit_word(scene, cell)} ?", CELLS[cell]


def _cell_of_color(scene, rng):
    if not (cells := cells_of_unique_color(scene)):
        return None
    cell = _pick(cells, rng)
    return f"where is the {color_word(scene, cell)} ?", CELLS[cell]


def _exists(scene, rng):
    present = rng.random() < 0.5
    digit = _pick([d for d in range(10) if (d in scene.digits) == present], rng)
    return f"is there a {digit} ?", "yes" if present else "no"


def _count_color(scene, rng):
    counts = [int(np.sum(scene.colors == color)) for color in range(len(COLORS))]
    count = _pick(sorted({n for n in counts if n <= MAX_COUNT}), rng)  # each count is equally likely, 0 included
    color = _pick([color for color, n in enumerate(counts) if n == count], rng)
    return f"how many {COLORS[color]} ?", str(count)


def _right_of_cell(scene, rng):
    if not (cells := _left_neighbours(scene)):
        return None
    cell = _pick(cells, rng)
    return f"what digit is right of {CELLS[cell]} ?", digit_word(scene, cell + 1)


def _right_of_digit(scene, rng):
    if not (cells := [k for k in _left_neighbours(scene) if scene.digits[k] != EMPTY]):
        return None
    cell = _pick(cells, rng)
    return f"what digit is right of {digit_word(scene, cell)} ?", digit_word(scene, cell + 1)


def _filled(scene, rng):
    return "how many digits ?", str(len(scene.filled))


_ASK: dict[str, Callable[[Scene, np.random.Generator], tuple[str, str] | None]] = {
    "digit_at_cell": _digit_at_cell,
    "color_at_cell": _color_at_cell,
    "digit_of_color": _digit_of_color,
    "color_of_digit": _color_of_digit,
    "cell_of_digit": _cell_of_digit,
    "cell_of_color": _cell_of_color,
    "exists": _exists,
    "count_color": _count_color,
    "right_of_cell": _right_of_cell,
    "right_of_digit": _right_of_digit,
    "filled": _filled,
}

QUESTION_TYPES = tuple(_ASK)
LOOKUP_TYPES = QUESTION_TYPES[:6]
"""The six types that read one attribute of one cell; the others combine several cells."""


def ask(scene: Scene, type: str, rng: np.random.Generator) -> Question | None:
    """A question of ``type`` about the scene, or None where the scene allows none with a unique answer."""
    if type not in _ASK:
        raise DataError(choices(type, QUESTION_TYPES, "question type"))
    asked = _ASK[type](scene, rng)
    return None if asked is None else Question(text=asked[0], answer=asked[1], type=type)
