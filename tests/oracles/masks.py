"""What kinds and labels a sample must have, built piece by piece from the known layout of the test templates.

Nothing here looks at character offsets or at a rendered template: the text is put together from literal fragments, and
for byte-level tokenizers tokens are laid beside it byte by byte.
"""

from __future__ import annotations

from qig.data.samples import CalibrationSample, PlainText
from qig.data.tokens import TokenKind

Fragment = tuple[str, TokenKind, bool]
"""Text, its kind, and whether all of it is learned."""


def tiny_fragments(sample: CalibrationSample, picture: tuple[str, int, str]) -> list[Fragment]:
    """Fragments in the layout of the embedded models' template; ``picture``: what stands before, how many, behind."""
    before, places, behind = picture
    found: list[Fragment] = []
    for segment in sample.segments:
        if isinstance(segment, PlainText):
            found.append((segment.text, TokenKind.ANSWER, True))
            continue
        for turn in segment:
            answers = turn.role == "assistant"
            found.append(("<|im_start|>", TokenKind.SPECIAL, False))
            found.append((turn.role + "\n", TokenKind.SPECIAL, False))
            for part in turn.content:
                if isinstance(part, str):
                    found.append((part, TokenKind.ANSWER if answers else TokenKind.PROMPT, answers))
                    continue
                found.append((before, TokenKind.SPECIAL, False))
                found += [("<|image_pad|>", TokenKind.VISION, False)] * places
                found.append((behind, TokenKind.SPECIAL, False))
            ends = answers and isinstance(turn.content[-1], str)
            found.append(("<|im_end|>", TokenKind.SPECIAL, ends))
            found.append(("\n", TokenKind.SPECIAL, False))
    return [fragment for fragment in found if fragment[0]]


def by_word(fragments: list[Fragment], tokenizer) -> list[tuple[int, int, bool]]:
    """``(id, kind, learned)`` of each token, where no token crosses a fragment (a word-level tokenizer)."""
    return [
        (token, int(kind), learned)
        for text, kind, learned in fragments
        for token in tokenizer(text, add_special_tokens=False)["input_ids"]
    ]


def by_byte(fragments: list[Fragment], ids: list[int], tokenizer) -> list[tuple[int, int, bool]]:
    """The same for a byte-level tokenizer; a token with bytes of a text and of the template belongs to the text."""
    kinds = [(kind, learned) for text, kind, learned in fragments for _ in text.encode()]
    assert b"".join(_bytes(token, tokenizer) for token in ids) == "".join(f[0] for f in fragments).encode()
    found, position = [], 0
    for token in ids:
        covered = kinds[position : position + len(_bytes(token, tokenizer))]
        position += len(covered)
        texts = [entry for entry in covered if entry[0] in (TokenKind.PROMPT, TokenKind.ANSWER)]
        kind, learned = (texts or covered)[-1]
        found.append((token, int(kind), learned))
    return found


def _bytes(token: int, tokenizer) -> bytes:
    if token in tokenizer.added_tokens_decoder:
        return tokenizer.added_tokens_decoder[token].content.encode()
    return bytes(_BYTES[character] for character in tokenizer.convert_ids_to_tokens(token))


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES = _byte_alphabet()
