"""A calibration sample as the text that a model's chat template makes of it, with the place of every content in it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2.exceptions import TemplateError

from qig.data.samples import CalibrationSample, Conversation, PlainText
from qig.data.tokens import TokenKind
from qig.errors import DataError
from qig.models.classes import Processor

# Stands for a text in the template's first rendering; private-use characters, which no template treats in a way of
# its own.
_OPEN, _CLOSE = "\ue000", "\ue001"
_MARK = re.compile(f"{_OPEN}(\\d+){_CLOSE}")


@dataclass(frozen=True)
class Span:
    """Characters ``start`` to ``stop`` are a text of the sample; ``ends_turn``: the assistant's turn ends with it."""

    start: int
    stop: int
    kind: TokenKind
    ends_turn: bool


@dataclass(frozen=True)
class Rendered:
    """Text with one placeholder an image; what no span covers was added by the template."""

    text: str
    spans: tuple[Span, ...]


def render(sample: CalibrationSample, processor: Processor) -> Rendered:
    """The sample as text, before image placeholders are expanded.

    Raises:
        DataError: a text has a control token of the model in it, or the template does not show the conversation as
            it is; names the sample.
    """
    text, spans = "", []
    try:
        for segment in sample.segments:
            plain = isinstance(segment, PlainText)
            part = _plain(segment, processor) if plain else _conversation(segment, processor)
            spans += [Span(s.start + len(text), s.stop + len(text), s.kind, s.ends_turn) for s in part.spans]
            text += part.text
    except (DataError, TemplateError, ValueError, TypeError) as error:
        raise DataError(f"calibration sample {sample.id} cannot be rendered: {error}") from error
    return Rendered(text, tuple(spans))


def _plain(segment: PlainText, processor: Processor) -> Rendered:
    _refuse_control_tokens([segment.text], processor)
    text = segment.text
    if segment.max_tokens is not None:
        offsets = processor.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, truncation=True, max_length=segment.max_tokens
        )["offset_mapping"]
        text = text[: offsets[-1][1]] if offsets else ""
    return Rendered(text, (Span(0, len(text), TokenKind.ANSWER, False),))


def _conversation(turns: Conversation, processor: Processor) -> Rendered:
    texts = [part for turn in turns for part in turn.content if isinstance(part, str)]
    _refuse_control_tokens(texts, processor)
    whole = _template(turns, texts, processor)
    pieces = _MARK.split(_template(turns, [f"{_OPEN}{i}{_CLOSE}" for i in range(len(texts))], processor))
    if pieces[1::2] != [str(i) for i in range(len(texts))]:
        raise DataError("the chat template drops, repeats or reorders texts of the conversation")
    between = pieces[::2]
    for shown in (texts, [text.strip() for text in texts], [text.lstrip() for text in texts]):
        if "".join(itertools.chain(*itertools.zip_longest(between, shown, fillvalue=""))) == whole:
            return Rendered(whole, _spans(turns, between, shown))
    raise DataError("the chat template changes the texts of the conversation")


def _spans(turns: Conversation, between: Sequence[str], shown: Sequence[str]) -> tuple[Span, ...]:
    spans, position, texts = [], 0, iter(zip(between, shown, strict=False))
    for turn in turns:
        kind = TokenKind.ANSWER if turn.role == "assistant" else TokenKind.PROMPT
        for place, part in enumerate(turn.content):
            if isinstance(part, str):
                before, text = next(texts)
                start, position = position + len(before), position + len(before) + len(text)
                ends = kind is TokenKind.ANSWER and place == len(turn.content) - 1
                spans.append(Span(start, position, kind, ends))
    return tuple(spans)


def _template(turns: Conversation, texts: Sequence[str], processor: Processor) -> str:
    remaining = iter(texts)
    messages = [
        {
            "role": turn.role,
            "content": [
                {"type": "text", "text": next(remaining)} if isinstance(part, str) else {"type": "image"}
                for part in turn.content
            ],
        }
        for turn in turns
    ]
    return processor.apply_chat_template(messages, tokenize=False)


def _refuse_control_tokens(texts: Sequence[str], processor: Processor) -> None:
    """A control token in a text would end its turn, or claim an image that is not there."""
    tokenizer = processor.tokenizer
    control = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    control |= {getattr(processor, name, None) for name in ("image_token", "video_token")}
    control -= {tokenizer.unk_token, None}  # an unknown word is a word
    for text in texts:
        found = sorted(token for token in control if token in text)
        if found or _OPEN in text:
            raise DataError(f"its text contains the model's control token {(found or [_OPEN])[0]!r}")
