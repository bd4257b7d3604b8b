"""Packed prompts: one image, then many independent continuations of it in a single row.

A four-dimensional mask lets every segment see the image prefix and itself only, and its positions go on from the
prefix, so a segment's logits equal those of the prompt asked alone while the image is encoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from qig.data.digitgrid import IMAGE_SIZE, PairList, Question, encode
from qig.models.tiny.build import PAD_ID

IGNORED = -100


@dataclass(frozen=True)
class Segment:
    """A continuation of the image prefix: token ids, and for each whether the loss counts it.

    ``type`` is the question type where the segment is a question; its answer and an end of turn are then learned.
    """

    input_ids: tuple[int, ...]
    learned: tuple[bool, ...]
    type: str | None = None


@dataclass(frozen=True)
class Writer:
    """Writes prompts and answers as segments, in the words of one tokenizer and the marks of its chat template.

    Attributes:
        encode: token ids of a text.
        turn_change: what stands between prompt and answer.
        end: the end of the answer's turn, which is a single token.
    """

    encode: Callable[[str], list[int]]
    turn_change: str
    end: str

    def text(self, prompt: str, answer: str, type: str | None = None) -> Segment:
        """A prompt whose whole answer and end of turn are learned."""
        asked, told = self.encode(prompt + self.turn_change), self.encode(answer + self.end)
        return Segment((*asked, *told), (False,) * len(asked) + (True,) * len(told), type)

    def question(self, question: Question) -> Segment:
        return self.text(question.text, question.answer, question.type)

    def pairs(self, pairs: PairList) -> Segment:
        """A pair list of which only the values are learned: the keys come in random order."""
        ids = self.encode(pairs.prompt + self.turn_change)
        learned = [False] * len(ids)
        for place, word in enumerate(pairs.words):
            told = self.encode(f" {word}" if place else word)
            ids, learned = [*ids, *told], [*learned, *[place % 2 == 1] * len(told)]
        return Segment(tuple(ids), tuple(learned))


WORDS = Writer(encode, " <|im_end|> <|im_start|> assistant ", " <|im_end|>")
"""Of the tiny models: one word is one token."""


@dataclass(frozen=True)
class Prefix:
    """What precedes every question of one image: ids [P], positions [axes, P] (3 axes in Qwen2-VL, else 1)."""

    input_ids: torch.Tensor
    positions: torch.Tensor
    next_position: int


def image_prefix(model: PreTrainedModel, processor: ProcessorMixin) -> Prefix:
    """The prefix as the processor's own chat template writes it, for one image of the DigitGrid size."""
    mark = "describe"
    picture = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE))
    content = [{"type": "image", "image": picture}, {"type": "text", "text": mark}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=True, return_dict=True, return_tensors="pt"
    )
    row = inputs["input_ids"][0].tolist()
    length = row.index(processor.tokenizer.convert_tokens_to_ids(mark))
    if hasattr(model.model, "get_rope_index"):
        known = {name: inputs[name] for name in ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")}
        positions = model.model.get_rope_index(**known)[0][:, 0]
        return Prefix(inputs["input_ids"][0, :length], positions[:, :length], int(positions[0, length]))
    return Prefix(inputs["input_ids"][0, :length], torch.arange(length)[None], length)


@dataclass(frozen=True)
class PackedBatch:
    """Rows of one image each: ``input_ids`` and ``labels`` [b, t], ``mask`` [b, 1, t, t] (True = may be seen).

    ``position_ids`` is [3, b, t] for Qwen2-VL and [b, t] otherwise. ``answers`` lists (row, start, stop, type) of each
    question's answer tokens, without the end of the turn.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    mask: torch.Tensor
    position_ids: torch.Tensor
    answers: list[tuple[int, int, int, str]]


def pack(prefix: Prefix, rows: Sequence[Sequence[Segment]], pad: int = PAD_ID) -> PackedBatch:
    """Lay each row's segments behind the prefix; shorter rows are padded on the right."""
    start = len(prefix.input_ids)
    length = start + max(sum(len(segment.input_ids) for segment in row) for row in rows)
    shape = (len(rows), length)
    ids = torch.full(shape, pad)
    labels = torch.full(shape, IGNORED)
    owner = torch.full(shape, -1)  # 0 the prefix, 1.. the segments, -1 padding
    positions = torch.zeros(len(prefix.positions), *shape, dtype=torch.long)
    answers = []
    ids[:, :start], owner[:, :start], positions[:, :, :start] = prefix.input_ids, 0, prefix.positions[:, None]
    for r, row in enumerate(rows):
        at = start
        for s, segment in enumerate(row):
            end = at + len(segment.input_ids)
            ids[r, at:end] = torch.tensor(segment.input_ids)
            labels[r, at:end] = ids[r, at:end].where(torch.tensor(segment.learned), IGNORED)
            owner[r, at:end] = s + 1
            positions[:, r, at:end] = prefix.next_position + torch.arange(end - at)
            if segment.type is not None:
                answers.append((r, at + segment.learned.index(True), end - 1, segment.type))
            at = end
    mask = (owner[:, :, None] == owner[:, None, :]) | (owner[:, None, :] == 0)
    mask &= torch.ones(length, length, dtype=torch.bool).tril()
    return PackedBatch(ids, labels, mask[:, None], positions if len(positions) > 1 else positions[0], answers)


def answered(batch: PackedBatch, told: torch.Tensor) -> dict[str, list[bool]]:
    """By question type, whether the tokens ``told [b, t]`` that follow each place give the whole answer."""
    correct: dict[str, list[bool]] = {}
    for row, start, stop, type in batch.answers:
        right = torch.equal(told[row, start - 1 : stop - 1], batch.input_ids[row, start:stop])
        correct.setdefault(type, []).append(right)
    return correct


def packed_inputs(batch: PackedBatch, image_features, dtype: torch.dtype) -> dict[str, Any]:
    """What a model takes of a packed batch, given its own ``get_image_features`` of the images."""
    # Finite: a softmax over a padded row of minus infinities would be undefined.
    bias = torch.zeros(batch.mask.shape, dtype=dtype).masked_fill_(~batch.mask, -1e4)
    return {
        "input_ids": batch.input_ids,
        "attention_mask": bias,
        "position_ids": batch.position_ids,
        "mm_encoder_outputs": {"image": image_features},
        "use_cache": False,
    }


def packed_logits(model: PreTrainedModel, batch: PackedBatch, image_features, dtype: torch.dtype) -> torch.Tensor:
    """Logits [b, t, vocabulary] of a packed batch."""
    return model(**packed_inputs(batch, image_features, dtype)).logits
