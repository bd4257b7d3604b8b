"""Captions: natural ones, which calibration uses, and pair lists, from which training learns the look-ups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qig.errors import DataError, choices

from .questions import LOOKUP_TYPES, cells_of_unique_color, color_word, digit_word
from .scenes import CELLS, EMPTY, Scene

CAPTION_PROMPT = "describe the image in detail ."


@dataclass(frozen=True)
class PairList:
    """All pairs of one relation, key and value by turns: ``match color : digit`` -> ``yellow 9 red 5``.

    ``words`` has an even length; the values stand at the odd places and alone are learned.
    """

    prompt: str
    words: tuple[str, ...]


def natural_caption(scene: Scene) -> str:
    """``the image shows 2 digits . r1c1 red 5 , r3c2 blue 0 .`` in reading order."""
    parts = (f"{CELLS[k]} {color_word(scene, k)} {digit_word(scene, k)}" for k in scene.filled)
    return f"the image shows {len(scene.filled)} digits . {' , '.join(parts)} ."


def pair_list(scene: Scene, relation: str, rng: np.random.Generator) -> PairList:
    """The pairs of a look-up type in random order; with cells as keys, one empty cell is among them."""
    if relation not in LOOKUP_TYPES:
        raise DataError(choices(relation, LOOKUP_TYPES, "relation"))
    value, key = relation.replace("_at_", "_of_").split("_of_")
    cells = cells_of_unique_color(scene) if key == "color" else scene.filled.tolist()
    if key == "cell":
        cells.append(int(rng.choice(np.flatnonzero(scene.digits == EMPTY))))
    word = {"cell": lambda _, k: CELLS[k], "digit": digit_word, "color": color_word}
    words = [word[kind](scene, cells[i]) for i in rng.permutation(len(cells)) for kind in (key, value)]
    return PairList(prompt=f"match {key} : {value}", words=tuple(words))
