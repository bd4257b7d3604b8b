"""What each image token is to say, in the language model's own word embeddings.

The 36 tokens are four to a cell, in reading order: its row, its column, its colour, its digit. To the language model
the picture then reads like ``r1 c1 red 5 r1 c2 none none ..``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from qig.data.digitgrid import COLORS, Scene

SLOTS = ("row", "column", "color", "digit")
_CELLS, _GRID = 9, 3
_SHARPNESS = 8.0  # of the classification: at a word's own place another one is about twice its squared norm away


class Slots:
    """The words of each slot as vectors ``[words, hidden]``: the mean of the embeddings of a word's tokens.

    Rows and columns are ``r1`` and ``c1``, so that no digit of a cell's name is taken for the cell's digit.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, embedding: Tensor) -> None:
        places = [str(i + 1) for i in range(_GRID)]
        words = {
            "row": [f" r{place}" for place in places],
            "column": [f"c{place}" for place in places],
            "color": [f" {color}" for color in (*COLORS, "none")],
            "digit": [*map(str, range(10)), " none"],
        }
        self.vectors = {
            slot: torch.stack([embedding[tokenizer.encode(word, add_special_tokens=False)].mean(0) for word in listed])
            for slot, listed in words.items()
        }
        self.unit = {slot: vectors.pow(2).sum(-1).mean() for slot, vectors in self.vectors.items()}

    def targets(self, scenes: Sequence[Scene]) -> dict[str, Tensor]:
        """Per slot the index of each cell's word, ``[scenes, 9]``; an empty cell's is the last."""
        cells = torch.arange(_CELLS).expand(len(scenes), -1)
        digits = np.stack([np.where(scene.digits < 0, 10, scene.digits) for scene in scenes])
        colors = np.stack([np.where(scene.colors < 0, len(COLORS), scene.colors) for scene in scenes])
        found = (cells // _GRID, cells % _GRID, torch.from_numpy(colors), torch.from_numpy(digits))
        return dict(zip(SLOTS, found, strict=True))

    def spoken(self, scenes: Sequence[Scene], noise: float = 0.0) -> Tensor:
        """What a tower that makes no mistake would say, ``[scenes, 36, hidden]``.

        Args:
            noise: root mean square of what is added, as a share of a word's own.
        """
        targets = self.targets(scenes)
        said = torch.stack([self.vectors[slot][targets[slot]] for slot in SLOTS], dim=2)
        strength = torch.stack([self.unit[slot] for slot in SLOTS]).div(said.shape[-1]).sqrt()
        return (said + noise * strength[:, None] * torch.randn_like(said)).flatten(1, 2)

    def loss(self, features: Tensor, scenes: Sequence[Scene]) -> tuple[Tensor, dict[str, float]]:
        """Of image features ``[scenes, 36, hidden]``: which word is nearest (cross-entropy), and how far it is.

        Returns:
            The sum over the slots, and per slot the share of tokens whose nearest word is the right one.
        """
        places = features.unflatten(1, (_CELLS, len(SLOTS)))
        total, right = features.new_zeros(()), {}
        for number, (slot, target) in enumerate(self.targets(scenes).items()):
            distance = torch.cdist(places[:, :, number].flatten(0, 1), self.vectors[slot]) ** 2 / self.unit[slot]
            target = target.flatten()
            total = total + F.cross_entropy(-_SHARPNESS * distance, target)
            total = total + distance.gather(1, target[:, None]).mean()
            right[slot] = float((distance.argmin(-1) == target).float().mean())
        return total, right
