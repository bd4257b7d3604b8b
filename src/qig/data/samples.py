"""What a calibration set yields before any model's chat template is applied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class CalibrationSample:
    """One user turn (images, then the prompt) and the answer that follows it.

    ``id`` names the sample in run records; it is unique within its set and stable between runs.
    """

    id: str
    images: tuple[Image, ...]
    prompt: str
    answer: str
