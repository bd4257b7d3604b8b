"""What every calibration set does."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from qig.config.schema import Calibration, ImageCalibration
from qig.data.images import is_file
from qig.data.samples import CalibrationSample, Conversation, Corpus, ImagePolicy, PlainText
from qig.errors import DataError


class CalibrationSet(ABC):
    """A kind of set. ``inner``: the sets that it is made of, by name. ``place``: where the configuration has it."""

    def __init__(self, config: Calibration, inner: Mapping[str, CalibrationSet], place: str) -> None:
        self.config = config
        self.inner = inner
        self._place = place

    def key(self, option: str) -> str:
        """The configuration key of one of its options, for messages."""
        return f"{self._place}.{option}"

    @abstractmethod
    def read(self) -> Corpus:
        """The chosen samples, and those among the chosen that cannot be used."""

    def check_available(self) -> None:
        """Raises DataError if files, folders or columns are absent."""
        for part in self.inner.values():
            part.check_available()

    def content_hash(self) -> str:
        """SHA-256 over everything that ``read`` yields, images as they are encoded."""
        corpus, result = self.read(), hashlib.sha256()
        for sample in corpus.samples:
            for item in _flattened(sample):
                result.update(f"{len(item)}:".encode() + item)
        for name, reason in corpus.skipped.items():
            result.update(f"skipped {name!r} {reason!r}".encode())
        return result.hexdigest()


def choose(available: int, config: Calibration, where: str) -> list[int]:
    """Positions of ``config.samples`` samples in a seeded order (numpy's permutation, as MBQ's code shuffles).

    Raises:
        DataError: fewer are there.
    """
    if available < config.samples:
        raise DataError(
            f"{where} has {available} samples, but {config.samples} are asked for; set calibration.samples lower"
        )
    return np.random.default_rng(config.seed).permutation(available)[: config.samples].tolist()


def local(path: str) -> Path:
    """The path with the user's home directory in place of ``~``."""
    return Path(os.path.expanduser(path))


def printable(value: object) -> str:
    """Text that can be written to any file: lone surrogates escaped."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def policy_of(config: ImageCalibration) -> ImagePolicy:
    """What the set says of its images."""
    return ImagePolicy(config.images == "pad", config.max_pixels)


def conversation_or_reason(turns: Conversation) -> str | None:
    """Why a conversation cannot be calibrated on; ``None`` if it can."""
    for number, turn in enumerate(turns, start=1):
        if not any(not isinstance(part, str) or part.strip() for part in turn.content):
            return "has no answer" if turn.role == "assistant" else f"turn {number} is empty"
    answered = any(isinstance(part, str) for turn in turns if turn.role == "assistant" for part in turn.content)
    return None if answered else "has no answer"


def _flattened(sample: CalibrationSample):
    yield sample.id.encode("utf-8", "surrogatepass")
    yield str(sample.policy).encode()
    for segment in sample.segments:
        if isinstance(segment, PlainText):
            yield f"plain {segment.max_tokens}".encode()
            yield segment.text.encode("utf-8", "surrogatepass")
            continue
        for turn in segment:
            yield turn.role.encode()
            for part in turn.content:
                yield part.encode("utf-8", "surrogatepass") if isinstance(part, str) else b"image"
                if not isinstance(part, str):
                    yield _image_bytes(part)


def _image_bytes(picture) -> bytes:
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, Path):
        try:
            return picture.read_bytes() if is_file(picture) else b"unreadable"  # a pipe would be waited for
        except OSError:
            return b"unreadable"
    return f"{picture.mode} {picture.size}".encode() + picture.tobytes()
