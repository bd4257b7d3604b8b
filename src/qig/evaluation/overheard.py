"""Likelihoods of right answers, read off while the model gives them: no pass of their own where they are given."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .likelihood import with_answers
from .prompts import Conversation


@contextmanager
def overheard(
    model, processor, conversations: Sequence[Conversation], answers: Sequence[str | None]
) -> Iterator[list[float | None]]:
    """Listen to ``model.generate`` answering the conversations, in one batch; gives a list that is filled at the end.

    It holds what :func:`~qig.evaluation.likelihood.answer_nll` says of each answer, up to rounding, wherever the model
    itself writes that answer (its end, the last token, excepted: its likelihood is there whatever comes instead), and
    ``None`` elsewhere: another answer, beams, no right answer, a likelihood that is not a number.

    Raises:
        EvaluationError: an answer's tokens merge with those of the prompt.
    """
    known: list[float | None] = [None] * len(conversations)
    told = [index for index, answer in enumerate(answers) if answer]
    if not told:
        yield known
        return
    _, tokens = with_answers(processor, [conversations[i] for i in told], [answers[i] for i in told])
    listener = _Listener(dict(zip(told, tokens, strict=True)), len(conversations))
    hook = model.register_forward_hook(listener, with_kwargs=True)
    try:
        yield known
    finally:
        hook.remove()
    for index, value in listener.complete().items():
        known[index] = value


class _Listener:
    """A forward hook; ``expected``: per row of a batch of ``rows`` the tokens of the right answer."""

    def __init__(self, expected: dict[int, list[int]], rows: int) -> None:
        self.expected, self.rows = expected, rows
        self.nll: dict[int, list[float]] = {row: [] for row in expected}
        self.right = set(expected)  # rows that have said nothing else so far
        self.step = 0

    def __call__(self, _model, _args, inputs, output) -> None:
        ids = inputs.get("input_ids")
        if ids is None or len(ids) != self.rows:
            self.right.clear()
        if self.step and self.right:  # what the model said last is what it reads now
            said = ids[:, -1].tolist()
            self.right = {row for row in self.right if said[row] == self.expected[row][self.step - 1]}
        self.right = {row for row in self.right if len(self.expected[row]) > self.step}
        if rows := sorted(self.right):
            log_probability = output.logits[rows, -1].float().log_softmax(dim=-1)
            wanted = [self.expected[row][self.step] for row in rows]
            for row, value in zip(rows, log_probability[range(len(rows)), wanted].tolist(), strict=True):
                self.nll[row].append(-value)
        self.step += 1

    def complete(self) -> dict[int, float]:
        """The sums over the answers that were heard to the end."""
        heard = {row: math.fsum(v) for row, v in self.nll.items() if len(v) == len(self.expected[row])}
        return {row: value for row, value in heard.items() if math.isfinite(value)}
