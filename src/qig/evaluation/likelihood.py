"""Negative log-likelihood of the right answers: finer than accuracy, and never tied."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from qig.errors import EvaluationError

from .prompts import Conversation, around_answer, render
from .protocols import Protocol
from .shared_pictures import model_inputs


def answer_nll(
    model, processor, conversations: Sequence[Conversation], answers: Sequence[str], protocol: Protocol
) -> list[float]:
    """Negative log-likelihood of each answer in nats, summed over its tokens and the end of turn; one batch.

    The answer follows the very prompt from which the model generates, and the white space that the chat template has
    there; it ends as the template ends a turn.

    Raises:
        EvaluationError: lengths differ, an answer is empty, or its tokens merge with those of the prompt.
        NonFiniteError: a likelihood is not a number; the sample is its place in the batch.
    """
    import torch

    from qig.finite import refuse_non_finite

    _check(conversations, answers)
    texts, expected = with_answers(processor, conversations, answers)
    spans = [len(tokens) for tokens in expected]
    inputs = model_inputs(model, processor, texts, conversations, protocol, padding_side="right")
    ids, lengths = inputs["input_ids"], inputs["attention_mask"].sum(dim=1).tolist()
    places = [(row, length - back) for row, length in enumerate(lengths) for back in range(spans[row], 0, -1)]
    rows, columns = torch.tensor(places, device=ids.device).unbind(dim=1)
    if ids[rows, columns].tolist() != [token for tokens in expected for token in tokens]:
        raise EvaluationError("the processor's tokens do not end with the answer; is something added at their end?")
    with torch.inference_mode():
        logits, place = _logits_at(model, inputs, columns - 1)
        # One row a token of an answer: [answer tokens, vocabulary].
        log_probability = logits[rows, place].float().log_softmax(dim=-1)
        token_nll = -log_probability.gather(1, ids[rows, columns, None])[:, 0]
    parts = token_nll.cpu().split(spans)
    for row, part in enumerate(parts):
        refuse_non_finite("likelihoods", part.unsqueeze(0), [str(row)])
    return [part.double().sum().item() for part in parts]


def _check(conversations: Sequence[Conversation], answers: Sequence[str]) -> None:
    if len(conversations) != len(answers):
        raise EvaluationError(f"got {len(conversations)} conversations and {len(answers)} answers; expected as many")
    empty = [index for index, answer in enumerate(answers) if not answer]
    if empty:
        raise EvaluationError(f"got {len(empty)} empty answers (first at {empty[0]}); their likelihood says nothing")


def _logits_at(model, inputs, positions):
    """Logits [batch, kept, vocabulary] and, for each of ``positions``, its index among the kept ones.

    Where the model can, only positions in use are projected onto the vocabulary, which may hold 150,000 words.
    """
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        return model(**inputs, use_cache=False).logits, positions
    kept, place = positions.unique(return_inverse=True)
    return model(**inputs, use_cache=False, logits_to_keep=kept).logits, place


def with_answers(
    processor, conversations: Sequence[Conversation], answers: Sequence[str]
) -> tuple[list[str], list[list[int]]]:
    """The prompts with answer and end of turn as text, and the token ids after the prompt, end of turn included.

    Raises:
        EvaluationError: an answer's tokens merge with those of its prompt.
    """
    prompts = render(processor, conversations)
    between, end = around_answer(processor, conversations[0])
    texts, tokens = [prompt + between + answer + end for prompt, answer in zip(prompts, answers, strict=True)], []
    for prompt, text in zip(prompts, texts, strict=True):
        before, whole = processor.tokenizer([prompt, text], add_special_tokens=False)["input_ids"]
        if whole[: len(before)] != before:
            raise EvaluationError(
                f"the answer's tokens merge with the prompt's, so they cannot be told apart: {text[-120:]!r}"
            )
        tokens.append(whole[len(before) :])
    return texts, tokens
