"""Batched answers of an image-text-to-text model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .prompts import Conversation, encode, render, to_model

DEFAULT_MAX_NEW_TOKENS = 128
"""For tasks that set no length; the benchmarks of this field ask for a word, a phrase or an option's letter."""


def generate_answers(model, processor, conversations: Sequence[Conversation], options: Mapping[str, Any]) -> list[str]:
    """One answer a conversation, in one batch padded on the left.

    ``options`` are a task's generation arguments: ``max_new_tokens``, ``until`` (one or several strings at which an
    answer ends), ``num_beams``, and ``do_sample`` with ``temperature``, ``top_p``, ``top_k``; without ``do_sample``
    decoding is greedy whatever the checkpoint's own defaults are. Arguments meant for other models are ignored.
    """
    import torch

    inputs = to_model(encode(processor, render(processor, conversations), conversations, padding_side="left"), model)
    sample = bool(options.get("do_sample")) and options.get("temperature") != 0
    with torch.inference_mode():
        tokens = model.generate(
            **inputs,
            max_new_tokens=options.get("max_new_tokens", DEFAULT_MAX_NEW_TOKENS),
            num_beams=options.get("num_beams") or 1,
            do_sample=sample,
            # Unset rather than left out: a checkpoint's sampling defaults would only raise warnings here.
            **{name: options.get(name) if sample else None for name in ("temperature", "top_p", "top_k")},
            pad_token_id=processor.tokenizer.pad_token_id,
        )
    answers = processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [cut(answer, options.get("until")) for answer in answers]


def cut(answer: str, until: str | Sequence[str] | None) -> str:
    """The answer before the first of the stop strings, without surrounding white space."""
    stops = [until] if isinstance(until, str) else until or []
    for stop in filter(None, stops):
        answer = answer.split(stop, 1)[0]
    return answer.strip()
