"""Accuracy as any user would measure it: the real processor, single questions, greedy generation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

from qig.data.digitgrid import QUESTION_TYPES, EvaluationItem
from qig.models.classes import FROM_FILES


@torch.no_grad()
def answer_questions(
    model: PreTrainedModel, processor: ProcessorMixin, items: Sequence[EvaluationItem], batch_size: int = 64
) -> list[str]:
    """The generated answer to each item, special tokens removed."""
    answers = []
    for start in range(0, len(items), batch_size):
        conversations = [
            [
                {
                    "role": "user",
                    "content": [{"type": "image", "image": item.image}, {"type": "text", "text": item.question}],
                }
            ]
            for item in items[start : start + batch_size]
        ]
        inputs = processor.apply_chat_template(
            conversations,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
            processor_kwargs={"padding": True},
        )
        output = model.generate(**inputs.to(model.device, model.dtype), max_new_tokens=4, do_sample=False)
        answers += processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [answer.strip() for answer in answers]


def accuracy_by_type(items: Sequence[EvaluationItem], answers: Sequence[str]) -> dict[str, float]:
    """Share of exactly right answers for each question type that occurs."""
    right: dict[str, list[bool]] = {type: [] for type in QUESTION_TYPES}
    for item, answer in zip(items, answers, strict=True):
        right[item.type].append(answer == item.answer)
    return {type: sum(hits) / len(hits) for type, hits in right.items() if hits}


def accuracy_of(folder: Path, items: Sequence[EvaluationItem], batch_size: int = 64) -> dict[str, float]:
    """The same of a checkpoint as it was saved, through the classes a user loads it with, in float32."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, **FROM_FILES).eval()
    processor = AutoProcessor.from_pretrained(folder, **FROM_FILES)
    return accuracy_by_type(items, answer_questions(model, processor, items, batch_size))
