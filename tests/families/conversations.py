"""Dialogues of all the forms that calibration and evaluation meet, as padded batches."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from qig.data.calibration import CalibrationBatch
from qig.data.tokens import TokenKind
from qig.models.loading import LoadedModel


def image(height: int, width: int, seed: int = 0) -> Image.Image:
    """Noise of 16 x 16 colours, enlarged."""
    colours = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((width, height))


def turn(role: str, *parts: str | Image.Image) -> dict:
    content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image", "image": p} for p in parts]
    return {"role": role, "content": content}


def _captioned(*images: Image.Image, answer: str) -> list[dict]:
    return [turn("user", *images, "What is in the picture?"), turn("assistant", answer)]


TEXT_ONLY = [
    [turn("user", "Which digit is red?"), turn("assistant", "5")],
    [turn("user", "Name a color, and then all digits that are larger than 3."), turn("assistant", "blue, 4 5 6 7 8 9")],
]
CASES = {
    "one image": [_captioned(image(96, 96), answer="a red 7")],
    "sizes": [
        _captioned(image(96, 96, 1), answer="a red 7 in the center"),
        _captioned(image(70, 260, 2), answer="nothing"),
        _captioned(image(220, 130, 3), answer="5 green 4"),
    ],
    "several images": [
        _captioned(image(96, 96, 4), image(60, 180, 5), image(150, 90, 6), answer="three pictures"),
        _captioned(image(130, 80, 7), image(96, 96, 8), answer="two"),
    ],
    "text only": TEXT_ONLY,
    "with and without": [TEXT_ONLY[1], _captioned(image(96, 96, 9), answer="a red 7"), TEXT_ONLY[0]],
}


def padded(loaded: LoadedModel, conversations: list[list[dict]], side: str) -> CalibrationBatch:
    """The dialogues as one micro-batch, padded on the ``side``."""
    inputs = loaded.processor.apply_chat_template(
        conversations,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": side},
    )
    inputs = inputs.to(dtype=loaded.model.dtype)
    vision = torch.isin(inputs["input_ids"], torch.tensor(sorted(loaded.image_token_ids)))
    kinds = torch.where(vision, int(TokenKind.VISION), int(TokenKind.PROMPT)) * inputs["attention_mask"]
    rows = tuple(range(len(conversations)))
    return CalibrationBatch(tuple(map(str, rows)), rows, dict(inputs), kinds, inputs["input_ids"])
