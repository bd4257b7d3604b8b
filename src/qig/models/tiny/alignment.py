"""Stage 1 of training: every image token is read as the words for its cell's digit, colour and place.

The classifier is the language model's own word embedding, so image tokens start in the space that text lives in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from qig.data.digitgrid import CELLS, COLORS, VOCABULARY, Scene

SIDE = 6
"""Image tokens along one edge of the picture: two for each cell."""

_DIGIT_IDS = [VOCABULARY[word] for word in (*map(str, range(10)), "none")]
_COLOR_IDS = [VOCABULARY[word] for word in (*COLORS, "none")]
_CELL_IDS = [VOCABULARY[word] for word in CELLS]
_CELL_OF_TOKEN = torch.tensor([(i // SIDE // 2) * 3 + i % SIDE // 2 for i in range(SIDE * SIDE)])


def grid_tokens(pooled: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
    """The tokens that show the picture, [images, 36 k, hidden]: all but LLaVA-OneVision's ends of line."""
    tokens = pooled if isinstance(pooled, torch.Tensor) else torch.stack(tuple(pooled))
    area = SIDE * SIDE
    if tokens.shape[1] == area:
        return tokens
    base, tile = tokens[:, :area], tokens[:, area:].unflatten(1, (SIDE, SIDE + 1))[:, :, :SIDE]
    return torch.cat([base, tile.flatten(1, 2)], 1)


def alignment_loss(model: PreTrainedModel, pooled, scenes: Sequence[Scene]) -> torch.Tensor:
    """Mean cross-entropies [3] of digit, colour and cell over all image tokens of the scenes."""
    tokens = grid_tokens(pooled).float()
    tokens = tokens * torch.rsqrt(tokens.pow(2).mean(-1, keepdim=True) + 1e-6)
    cells = _CELL_OF_TOKEN.repeat(tokens.shape[1] // len(_CELL_OF_TOKEN))
    digits = torch.from_numpy(np.stack([np.where(s.digits < 0, len(_DIGIT_IDS) - 1, s.digits) for s in scenes]))
    colors = torch.from_numpy(np.stack([np.where(s.colors < 0, len(_COLOR_IDS) - 1, s.colors) for s in scenes]))
    words = model.get_input_embeddings().weight.float()
    targets = (
        (_DIGIT_IDS, digits[:, cells]),
        (_COLOR_IDS, colors[:, cells]),
        (_CELL_IDS, cells.expand(len(scenes), -1)),
    )
    return torch.stack([F.cross_entropy((tokens @ words[ids].T).flatten(0, 1), to.flatten()) for ids, to in targets])
