"""From chat messages to the tensors a model takes; the one place that calls a processor during evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qig.errors import EvaluationError, choices

Conversation = list[dict[str, Any]]
"""Turns ``{"role": ..., "content": [{"type": "image", "image": PIL} or {"type": "text", "text": str}]}``."""

_MARK = "<<answer>>"


def as_conversation(messages: Sequence[dict[str, Any]]) -> Conversation:
    """A Hugging Face conversation from lmms-eval's messages, which keep an image under ``url``."""
    return [
        {"role": message["role"], "content": [_as_part(part) for part in message["content"]]} for message in messages
    ]


def _as_part(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "text":
        return {"type": "text", "text": part["text"]}
    if part["type"] == "image":
        return {"type": "image", "image": part["url"]}
    raise EvaluationError(choices(part["type"], ("image", "text"), "message content"))


def render(processor, conversations: Sequence[Conversation]) -> list[str]:
    """The prompts as text, up to where the assistant's answer begins; images are still placeholders."""
    return [processor.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in conversations]


def end_of_turn(processor, conversation: Conversation) -> str:
    """What the chat template writes after an answer (``<|im_end|>``), without trailing white space; may be empty.

    Taken from a rendered answer rather than from the tokenizer's end of sequence, which some templates never use.
    """
    turn = {"role": "assistant", "content": [{"type": "text", "text": _MARK}]}
    text = processor.apply_chat_template([*conversation, turn], tokenize=False)
    if _MARK not in text:
        raise EvaluationError(f"the chat template drops the assistant's answer; it renders {text[-200:]!r}")
    return text.rpartition(_MARK)[2].rstrip()


def encode(processor, texts: Sequence[str], conversations: Sequence[Conversation], *, padding_side: str):
    """One processor call for a batch: ``input_ids`` and ``attention_mask`` [batch, tokens] and the pixels.

    ``texts`` are rendered from ``conversations``, whose images they refer to.
    """
    images = [[part["image"] for part in _parts(c) if part["type"] == "image"] for c in conversations]
    options = {"padding": True, "padding_side": padding_side, "return_tensors": "pt"}
    start = processor.tokenizer.bos_token
    if start and texts[0].startswith(start):
        options["add_special_tokens"] = False
    return processor(images=images if any(images) else None, text=list(texts), **options)


def _parts(conversation: Conversation) -> list[dict[str, Any]]:
    return [part for turn in conversation for part in turn["content"]]


def to_model(inputs, model):
    """The batch on the model's device, floating point tensors in its precision."""
    return inputs.to(model.device, dtype=model.dtype)
