"""What each token of a calibration sample is: padding, prompt, vision, answer or special."""

from __future__ import annotations

import itertools
from enum import IntEnum

from transformers import PreTrainedTokenizerBase


class TokenKind(IntEnum):
    """``SPECIAL``: everything the chat template added (control tokens, role names, line breaks)."""

    PADDING = 0
    PROMPT = 1
    VISION = 2
    ANSWER = 3
    SPECIAL = 4


def classify(
    ids: list[int], answer_start: int, image_ids: set[int], tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str
) -> list[TokenKind]:
    """Kind of each token of one unpadded sample.

    Between two special tokens the text is a run such as ``user`` + line break + prompt. Within a run the tokens of the
    prompt (before ``answer_start``) or of the answer (after) are found by the tokenizer's own character offsets;
    the rest of the run was added by the template.
    """
    apart = (set(tokenizer.all_special_ids) | image_ids) - _unknown(tokenizer)
    kinds = [TokenKind.VISION if token in image_ids else TokenKind.SPECIAL for token in ids]
    for start, stop in _runs(ids, apart, answer_start):
        content, kind = (answer, TokenKind.ANSWER) if start >= answer_start else (prompt, TokenKind.PROMPT)
        for position in _within(ids[start:stop], content, tokenizer):
            kinds[start + position] = kind
    return kinds


def _unknown(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The token of unknown words, which stands for a word of the text, unless it has another duty as well."""
    duties = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    return {tokenizer.unk_token_id} - duties


def _runs(ids: list[int], apart: set[int], cut: int) -> list[tuple[int, int]]:
    """Maximal ranges of ``ids`` without a token of ``apart`` and not across position ``cut``."""
    edges = [-1, *(i for i, token in enumerate(ids) if token in apart), len(ids)]
    runs = []
    for before, after in itertools.pairwise(edges):
        start, stop = before + 1, after
        pieces = [(start, cut), (cut, stop)] if start < cut < stop else [(start, stop)]
        runs += [piece for piece in pieces if piece[0] < piece[1]]
    return runs


def _within(run: list[int], content: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Positions in ``run`` whose characters lie within ``content``; all if the run does not re-tokenize to itself.

    The content is the end of a run (role names come before it), so its last occurrence counts. A tokenizer that
    normalises (case, spaces) decodes to another text than the content, which is then looked for as it decodes.
    """
    content = content.strip()
    text = tokenizer.decode(run, clean_up_tokenization_spaces=False)
    if content not in text:
        ids = tokenizer(content, add_special_tokens=False)["input_ids"]
        content = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    if not content or content not in text:
        return []
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    if encoded["input_ids"] != run:
        return list(range(len(run)))
    where = text.rfind(content)
    end = where + len(content)
    return [i for i, (a, b) in enumerate(encoded["offset_mapping"]) if b > where and a < end and b > a]
