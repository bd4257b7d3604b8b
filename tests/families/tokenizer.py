"""A byte-level BPE tokenizer like those of the families, trained on DigitGrid's words within the test session."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from qig.data.digitgrid import VOCABULARY

# Words keep the space before them, every digit is a token of its own, as in Qwen2's tokenizer.
_PIECES = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SIZE = 384


@cache
def _text() -> list[str]:
    rng, words = np.random.default_rng(0), list(VOCABULARY)
    lines = [" ".join(rng.choice(words, 12)) for _ in range(400)]
    return [*lines, "system\nYou are a helpful assistant.\nuser\nassistant\nUser: Assistant:"]


def trained_tokenizer(special_tokens: Sequence[str], digits: bool) -> Tokenizer:
    """``digits``: split as SmolLM2's tokenizer does (GPT-2's rule and single digits), else by Qwen2's rule."""
    tokenizer = Tokenizer(BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=digits)
    first = (
        pre_tokenizers.Digits(individual_digits=True) if digits else pre_tokenizers.Split(Regex(_PIECES), "isolated")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([first, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    if not digits:
        tokenizer.normalizer = normalizers.NFC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(_text(), BpeTrainer(vocab_size=_SIZE, initial_alphabet=alphabet, show_progress=False))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special_tokens])
    return tokenizer


def vocabulary_of(tokenizer: Tokenizer, tokens: Sequence[str]) -> dict[str, int]:
    """The id of each of the tokens."""
    return {token: tokenizer.token_to_id(token) for token in tokens}
