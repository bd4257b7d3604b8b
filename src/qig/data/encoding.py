"""A calibration sample as tokens: ids, the kind of each, and which of them are learned."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL.Image import Image

from qig.data.images import decode, pad_to_square, shrink
from qig.data.rendering import Span, render
from qig.data.samples import CalibrationSample
from qig.data.tokens import TokenKind
from qig.errors import DataError
from qig.models.classes import Processor


@dataclass(frozen=True)
class Encoded:
    """One sample for one model.

    Attributes:
        text: what the chat template made of it, one placeholder an image.
        ids: its tokens, image places expanded.
        kinds: ``[tokens]`` of ``TokenKind``.
        learned: boolean ``[tokens]``, the tokens of answers and the end-of-turn token after each answer.
    """

    sample: CalibrationSample
    text: str
    ids: list[int]
    kinds: np.ndarray
    learned: np.ndarray


def encode(sample: CalibrationSample, processor: Processor, image_token_ids: set[int]) -> Encoded:
    """Tokens of one sample; their kinds follow from the tokenizer's character offsets into the rendered text.

    A token that holds characters of a text and of the template (a merged line break) counts as text.

    Raises:
        DataError: an image that cannot be read, no answer, or what the processor or the template refuses; names the
            sample.
    """
    rendered = render(sample, processor)
    pictures = images_of(sample, processor)
    asked = ("return_offsets_mapping", "return_special_tokens_mask", "return_text_replacement_offsets")
    made = process([sample.id], [rendered.text], [pictures], processor, **dict.fromkeys(asked, True))
    replaced = (made.get("text_replacement_offsets") or [[]])[0]
    spans = _expanded(rendered.spans, replaced)
    offsets, added = made["offset_mapping"][0], made["special_tokens_mask"][0]
    ids = list(made["input_ids"][0])
    owner = _owners(offsets, added, spans)
    kinds = np.array([spans[i].kind if i >= 0 else TokenKind.SPECIAL for i in owner], dtype=np.uint8)
    kinds[np.isin(ids, list(image_token_ids))] = TokenKind.VISION
    learned = kinds == TokenKind.ANSWER
    if not learned.any():
        raise DataError(f"calibration sample {sample.id} has no answer token")
    for index, span in enumerate(spans):
        if span.ends_turn and (owner == index).any():
            after = int(np.flatnonzero(owner == index)[-1]) + 1
            if after < len(ids) and kinds[after] == TokenKind.SPECIAL:
                learned[after] = True
    return Encoded(sample, rendered.text, ids, kinds, learned)


def images_of(sample: CalibrationSample, processor: Processor) -> list[Image]:
    """The sample's images, decoded, and padded and shrunk as its set says."""
    try:
        images = [decode(picture) for picture in sample.images]
        if sample.policy.pad:
            images = [pad_to_square(image, processor.image_processor.image_mean) for image in images]
        if sample.policy.max_pixels is not None:
            images = [shrink(image, sample.policy.max_pixels) for image in images]
        return images
    except DataError as error:
        raise DataError(f"calibration sample {sample.id}: {error}") from error


def process(
    names: Sequence[str], texts: Sequence[str], images: Sequence[Sequence[Image]], processor: Processor, **options
) -> dict[str, Any]:
    """One processor call; either all samples have images or none has, and likewise a beginning-of-text token."""
    if begins_itself(texts[0], processor):
        options["add_special_tokens"] = False
    pictures = [list(row) for row in images] if any(images) else None
    try:
        return processor(images=pictures, text=list(texts), **options)
    except (OSError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError) as error:
        raise DataError(f"calibration sample {', '.join(names)} cannot be processed: {error}") from error


def begins_itself(text: str, processor: Processor) -> bool:
    """Whether the chat template has written the token with which the tokenizer would begin a text."""
    token = processor.tokenizer.bos_token
    return bool(token) and text.startswith(token)


def _expanded(spans: Sequence[Span], replaced: Sequence[dict]) -> list[Span]:
    """Spans in the text whose image placeholders were replaced by longer ones."""
    ends = [entry["span"][1] for entry in replaced]
    gained = [0, *(entry["new_span"][1] - entry["span"][1] for entry in replaced)]
    moved = ((span, gained[bisect_right(ends, span.start)]) for span in spans)
    return [Span(span.start + shift, span.stop + shift, span.kind, span.ends_turn) for span, shift in moved]


def _owners(offsets: Sequence[tuple[int, int]], added: Sequence[int], spans: Sequence[Span]) -> np.ndarray:
    """Index of the span that each token has characters of, -1 where it has none; ``[tokens]``."""
    starts = [span.start for span in spans]
    owners = []
    for (start, stop), by_tokenizer in zip(offsets, added, strict=True):
        index = bisect_right(starts, max(stop - 1, start)) - 1  # the last span that begins before the token ends
        owns = index >= 0 and not by_tokenizer and start < spans[index].stop
        owners.append(index if owns else -1)
    return np.array(owners, dtype=int)
