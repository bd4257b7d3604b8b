"""What a calibration set yields before any model's chat template is applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Union

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

Picture = Union["Image", "Path", bytes]
"""An image, or where its encoded form is: a file or bytes. Nothing is decoded before a model's processor needs it."""


@dataclass(frozen=True)
class Turn:
    """One message of a conversation: texts (``str``) and images (``Picture``) in the order in which they stand."""

    role: Literal["system", "user", "assistant"]
    content: tuple[str | Picture, ...]


@dataclass(frozen=True)
class PlainText:
    """Text outside any conversation and chat template, cut to ``max_tokens`` of the model's tokens."""

    text: str
    max_tokens: int | None = None


Conversation = tuple[Turn, ...]


@dataclass(frozen=True)
class ImagePolicy:
    """What is done to images before the processor sees them: padded to squares, then shrunk to ``max_pixels``."""

    pad: bool = False
    max_pixels: int | None = None


@dataclass(frozen=True)
class CalibrationSample:
    """Conversations and plain texts that follow each other in one sequence; most samples are one conversation.

    Attributes:
        id: names the sample in run records; unique within its set and stable between runs.
        policy: what is done to its images.
    """

    id: str
    segments: tuple[Conversation | PlainText, ...]
    policy: ImagePolicy = ImagePolicy()

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The turns of all conversations."""
        return tuple(turn for segment in self.segments if not isinstance(segment, PlainText) for turn in segment)

    @property
    def images(self) -> tuple[Picture, ...]:
        return tuple(part for turn in self.turns for part in turn.content if not isinstance(part, str))


def single_turn(name: str, images: Sequence[Picture], prompt: str, answer: str) -> CalibrationSample:
    """One user turn, images before the prompt, and the answer to it."""
    conversation = (Turn("user", (*images, prompt)), Turn("assistant", (answer,)))
    return CalibrationSample(name, (conversation,))


@dataclass(frozen=True)
class Corpus:
    """The samples of a set, and those that were chosen but cannot be used: id to reason."""

    samples: tuple[CalibrationSample, ...]
    skipped: dict[str, str] = field(default_factory=dict)
