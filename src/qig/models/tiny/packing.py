"""Packed prompts: one image, then many independent continuations of it in a single row.

A four-dimensional mask lets every segment see the image prefix and itself only, and its positions go on from the
prefix, so a segment's logits equal those of the prompt asked alone while the image is encoded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from qig.data.digitgrid import IMAGE_SIZE, PairList, Question, encode
from qig.models.tiny.build import PAD_ID

IGNORED = -100
TURN_CHANGE = "<|im_end|> <|im_start|> assistant"


@dataclass(frozen=True)
class Segment:
    """A continuation of the image prefix: token ids, and for each whether the loss counts it.

    ``type`` is the question type where the segment is a question; its answer is the first learned token.
    """

    input_ids: tuple[int, ...]
    learned: tuple[bool, ...]
    type: str | None = None


def text_segment(prompt: str, answer: str, type: str | None = None) -> Segment:
    """A prompt whose whole answer and end of turn are learned."""
    asked, told = encode(f"{prompt} {TURN_CHANGE}"), encode(f"{answer} <|im_end|>")
    return Segment((*asked, *told), (False,) * len(asked) + (True,) * len(told), type)


def question_segment(question: Question) -> Segment:
    return text_segment(question.text, question.answer, question.type)


def pair_segment(pairs: PairList) -> Segment:
    """A pair list of which only the values are learned: the keys come in random order."""
    asked, told = encode(f"{pairs.prompt} {TURN_CHANGE}"), encode(" ".join(pairs.words))
    return Segment((*asked, *told), (False,) * len(asked) + (False, True) * (len(told) // 2))


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

    ``position_ids`` is [3, b, t] for Qwen2-VL and [b, t] otherwise. ``answers`` lists (row, place, type) of each
    question's answer token.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    mask: torch.Tensor
    position_ids: torch.Tensor
    answers: list[tuple[int, int, str]]


def pack(prefix: Prefix, rows: Sequence[Sequence[Segment]]) -> PackedBatch:
    """Lay each row's segments behind the prefix; shorter rows are padded on the right."""
    start = len(prefix.input_ids)
    length = start + max(sum(len(segment.input_ids) for segment in row) for row in rows)
    shape = (len(rows), length)
    ids = torch.full(shape, PAD_ID)
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
                answers.append((r, at + segment.learned.index(True), segment.type))
            at = end
    mask = (owner[:, :, None] == owner[:, None, :]) | (owner[:, None, :] == 0)
    mask &= torch.ones(length, length, dtype=torch.bool).tril()
    return PackedBatch(ids, labels, mask[:, None], positions if len(positions) > 1 else positions[0], answers)


def packed_logits(model: PreTrainedModel, batch: PackedBatch, image_features, dtype: torch.dtype) -> torch.Tensor:
    """Logits [b, t, vocabulary] of a packed batch, given the model's own ``get_image_features`` of its images."""
    # Finite: a softmax over a padded row of minus infinities would be undefined.
    bias = torch.zeros(batch.mask.shape, dtype=dtype).masked_fill_(~batch.mask, -1e4)
    return model(
        input_ids=batch.input_ids,
        attention_mask=bias,
        position_ids=batch.position_ids,
        mm_encoder_outputs={"image": image_features},
        use_cache=False,
    ).logits
