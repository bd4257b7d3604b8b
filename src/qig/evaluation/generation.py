"""Batched answers of an image-text-to-text model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from qig.finite import refuse_non_finite

from .prompts import Conversation, render
from .protocols import Protocol
from .shared_pictures import model_inputs


def generate_answers(
    model, processor, conversations: Sequence[Conversation], options: Mapping[str, Any], protocol: Protocol
) -> list[str]:
    """One answer a conversation, in one batch padded on the left.

    ``options`` are a task's generation arguments, see :func:`generation_arguments`; of them ``until`` (one or several
    strings at which an answer ends) applies where the protocol heeds it.

    Raises:
        NonFiniteError: no token's score is a number; the sample is its place in the batch.
    """
    import torch
    from transformers import LogitsProcessorList

    texts = render(processor, conversations)
    inputs = model_inputs(model, processor, texts, conversations, protocol, padding_side="left")
    with torch.inference_mode():
        tokens = model.generate(
            **inputs,
            **generation_arguments(processor.tokenizer, options, protocol),
            logits_processor=LogitsProcessorList([_checked(len(texts))]),
        )
    answers = processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    if protocol.until:
        answers = [cut(answer, options.get("until")) for answer in answers]
    return [answer.strip() for answer in answers] if protocol.strip else answers


@contextmanager
def own_randomness(number: int, device) -> Iterator[None]:
    """A batch that is sampled draws from numbers of its own, whatever batches were or were not done before it.

    They follow from torch's seed and the batch's ``number``; the generators are afterwards as before.
    """
    import torch

    devices = [device] if device.type == "cuda" else []
    seed = torch.initial_seed()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed + number)
        yield


def _checked(batch: int):
    """A logits processor that hands the scores on as they are; the most likely token of NaN would be the first one.

    The largest score of each row tells: it is NaN where any is. Tokens that are ruled out have a score of -inf.
    """

    def check(_ids, scores):
        largest = scores.amax(-1)  # [batch x beams]
        refuse_non_finite("scores of the next token", largest.view(batch, -1), [str(row) for row in range(batch)])
        return scores

    return check


def generation_arguments(tokenizer, options: Mapping[str, Any], protocol: Protocol) -> dict[str, Any]:
    """Arguments of ``generate`` besides the inputs.

    A task may set ``max_new_tokens``, ``num_beams``, and ``temperature`` with ``top_p`` and ``top_k``. As in
    lmms-eval's wrappers a temperature above 0 alone means sampling; otherwise decoding is greedy, whatever the task's
    ``do_sample`` or the checkpoint's own defaults are. Arguments meant for other models are ignored.
    """
    sample = (options.get("temperature") or 0) > 0
    arguments = {
        "max_new_tokens": options.get("max_new_tokens", protocol.max_new_tokens),
        "num_beams": options.get("num_beams") or 1,
        "do_sample": sample,
        # Unset rather than left out: a checkpoint's sampling defaults would only raise warnings here.
        **{name: options.get(name) if sample else None for name in ("temperature", "top_p", "top_k")},
        "pad_token_id": tokenizer.eos_token_id if protocol.pads_with_stop_token else tokenizer.pad_token_id,
    }
    if protocol.stop_token:
        arguments["eos_token_id"] = tokenizer.eos_token_id
    return arguments


def cut(answer: str, until: str | Sequence[str] | None) -> str:
    """The answer before the first of the stop strings."""
    stops = [until] if isinstance(until, str) else until or []
    for stop in filter(None, stops):
        answer = answer.split(stop, 1)[0]
    return answer
