"""The words of DigitGrid and their token ids; one word is one token."""

from __future__ import annotations

from qig.errors import DataError

from .scenes import CELLS, COLORS

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<unk>",
)

# The third line serves prompts that other tasks put before or behind a question.
_WORDS = """
system user assistant . , : ? what digit digits is at color the where there a how many right of
none yes no describe image in detail shows match cell
answer question using single word or phrase with and from only
"""

VOCABULARY: dict[str, int] = {
    word: index for index, word in enumerate((*SPECIAL_TOKENS, *_WORDS.split(), *map(str, range(10)), *COLORS, *CELLS))
}


def encode(text: str) -> list[int]:
    """Token ids of words separated by spaces."""
    unknown = [word for word in text.split() if word not in VOCABULARY]
    if unknown:
        raise DataError(f"words {unknown} of {text!r} are not in the DigitGrid vocabulary of {len(VOCABULARY)} words")
    return [VOCABULARY[word] for word in text.split()]
