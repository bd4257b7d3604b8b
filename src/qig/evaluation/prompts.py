"""From a task's request to the tensors a model takes; the one place that calls a processor during evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qig.errors import EvaluationError, choices

from .pictures import as_sent
from .protocols import Protocol

Conversation = list[dict[str, Any]]
"""Turns ``{"role": ..., "content": [{"type": "image", "image": PIL} or {"type": "text", "text": str}]}``."""

_MARK = "<<answer>>"


def chat_conversation(messages: Sequence[dict[str, Any]], protocol: Protocol) -> Conversation:
    """What the model is asked by the messages of a chat task, which keep a picture under ``url``."""
    turns = [
        {"role": message["role"], "content": [_as_part(part, protocol) for part in message["content"]]}
        for message in messages
    ]
    return _with_system(turns, protocol)


def simple_conversation(pictures: Sequence, text: str, protocol: Protocol) -> Conversation:
    """What the model is asked by a simple task: one turn, all pictures before the text, marks of places dropped."""
    content = [_as_part({"type": "image", "url": picture}, protocol) for picture in pictures]
    content.append({"type": "text", "text": text.replace("<image>", "")})
    return _with_system([{"role": "user", "content": content}], protocol)


def _with_system(turns: Conversation, protocol: Protocol) -> Conversation:
    if protocol.system is None:
        return turns
    return [{"role": "system", "content": [{"type": "text", "text": protocol.system}]}, *turns]


def _as_part(part: dict[str, Any], protocol: Protocol) -> dict[str, Any]:
    if part["type"] == "text":
        return {"type": "text", "text": part["text"]}
    if part["type"] == "image":
        return {"type": "image", "image": as_sent(part["url"], protocol)}
    raise EvaluationError(choices(part["type"], ("image", "text"), "message content"))


def render(processor, conversations: Sequence[Conversation]) -> list[str]:
    """The prompts as text, up to where the assistant's answer begins; images are still placeholders."""
    return [processor.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in conversations]


def around_answer(processor, conversation: Conversation) -> tuple[str, str]:
    """What the chat template writes between its prompt and an answer, and after one.

    Before it white space alone counts (SmolVLM's ``Assistant:`` and a space, with which it was trained); there is none
    where a template begins an answer's turn otherwise than the prompt. After it (``<|im_end|>``) without trailing white
    space; may be empty. Taken from a rendered answer rather than from the tokenizer's end of sequence, which some never
    use.
    """
    turn = {"role": "assistant", "content": [{"type": "text", "text": _MARK}]}
    text = processor.apply_chat_template([*conversation, turn], tokenize=False)
    if _MARK not in text:
        raise EvaluationError(f"the chat template drops the assistant's answer; it renders {text[-200:]!r}")
    (prompt,) = render(processor, [conversation])
    before, _, after = text.rpartition(_MARK)
    between = before.removeprefix(prompt) if before.startswith(prompt) else ""
    return between if between.isspace() else "", after.rstrip()


def encode(processor, texts: Sequence[str], conversations: Sequence[Conversation], protocol: Protocol, *, padding_side):
    """One processor call for a batch: ``input_ids`` and ``attention_mask`` [batch, tokens] and the pixels.

    ``texts`` are rendered from ``conversations``, whose images they refer to.
    """
    from qig.data.encoding import begins_itself

    images = [pictures_of(c) for c in conversations]
    options = {"padding": True, "padding_side": padding_side, "return_tensors": "pt"}
    if begins_itself(texts[0], processor):
        options["add_special_tokens"] = False
    if not any(images):
        return processor(images=None, text=list(texts), **options)
    given = images if protocol.nested_pictures else [image for some in images for image in some]
    return processor(images=given, text=list(texts), **options, **protocol.processor_options)


def pictures_of(conversation: Conversation) -> list:
    """The pictures of a conversation, in its order."""
    return [part["image"] for part in _parts(conversation) if part["type"] == "image"]


def _parts(conversation: Conversation) -> list[dict[str, Any]]:
    return [part for turn in conversation for part in turn["content"]]


def to_model(inputs, model):
    """The batch on the model's device, floating point tensors in its precision."""
    return inputs.to(model.device, dtype=model.dtype)
