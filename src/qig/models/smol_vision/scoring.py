"""What the whole model answers, as a user loads it."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from qig.data.digitgrid import evaluation_set
from qig.models.classes import FROM_FILES
from qig.models.tiny.scoring import accuracy_by_type, answer_questions

_AT_ONCE = 16


def accuracy_of(folder: Path, questions: int) -> dict[str, float]:
    """Share of right answers by question type, on ``questions`` test questions of each."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, **FROM_FILES).eval()
    processor = AutoProcessor.from_pretrained(folder, **FROM_FILES)
    items = evaluation_set(per_type=questions)
    return accuracy_by_type(items, answer_questions(model, processor, items, _AT_ONCE))
