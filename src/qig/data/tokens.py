"""What each token of a calibration sample is: padding, prompt, vision, answer or special."""

from __future__ import annotations

from enum import IntEnum


class TokenKind(IntEnum):
    """Kinds of tokens.

    ``PROMPT``: texts of system and user turns. ``VISION``: the places of image features. ``ANSWER``: texts of
    assistant turns, and plain text outside conversations, which is learned as well. ``SPECIAL``: everything that the
    chat template, the processor and the tokenizer added (control tokens, role names, line breaks, image borders).
    """

    PADDING = 0
    PROMPT = 1
    VISION = 2
    ANSWER = 3
    SPECIAL = 4
