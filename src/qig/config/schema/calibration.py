"""Options of the calibration sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from omegaconf import MISSING


@dataclass
class Calibration:
    """``max_skipped_share``: how many of the chosen samples may turn out unusable before it is an error."""

    kind: str = MISSING
    samples: int = MISSING
    seed: int = MISSING
    tokens_per_batch: int = MISSING
    max_skipped_share: float = MISSING


@dataclass
class DigitGridCalibration(Calibration):
    pass


@dataclass
class ImageCalibration(Calibration):
    """A set with images of its own. ``max_pixels``: larger ones are shrunk, with their proportions; null: none is.

    ``follow_links``: also read what symbolic links in the folder of images lead to elsewhere.
    """

    images: Literal["native", "pad"] = MISSING
    max_pixels: int | None = MISSING
    follow_links: bool = MISSING


@dataclass
class ShareGptCalibration(ImageCalibration):
    """Records of ShareGPT4V's form. ``image_prefix``: only those whose image paths begin so; null: all."""

    path: str = MISSING  # json or jsonl
    image_folder: str = MISSING
    image_prefix: str | None = MISSING


@dataclass
class HfCalibration(ImageCalibration):
    """One question and answer a row of a Hugging Face data set, a local file or directory, by the columns' names.

    ``prompt``: one text for all rows, instead of ``prompt_column``. ``answers``: which of several right answers.
    ``image_folder``: where image paths of a column are looked up; images inside the data set need none.
    """

    path: str = MISSING  # file, directory, or hub id
    name: str | None = MISSING
    split: str = MISSING
    image_columns: list[str] = MISSING
    image_folder: str | None = MISSING
    image_position: Literal["before", "after"] = MISSING
    prompt_column: str | None = MISSING
    prompt: str | None = MISSING
    answer_column: str = MISSING
    answers: Literal["first", "joined"] = MISSING
    joiner: str = MISSING
    id_column: str | None = MISSING


@dataclass
class PileCalibration(Calibration):
    """Text without images or chat template, cut to ``max_tokens`` tokens."""

    path: str = MISSING  # file, directory, or hub id
    name: str | None = MISSING
    split: str = MISSING
    text_column: str = MISSING
    max_tokens: int = MISSING


@dataclass
class PythonDocsCalibration(Calibration):
    """Passages of the calibration part of Python's own documentation, cut to ``max_tokens`` tokens."""

    max_tokens: int = MISSING


@dataclass
class MixtureCalibration(Calibration):
    """Other sets, each with its share of the samples. What the whole says of samples and seed holds for the parts."""

    shares: dict[str, float] = MISSING
    parts: dict[str, Calibration] = MISSING


@dataclass
class FewShotCalibration(Calibration):
    """``shots`` samples of another set in a row make one."""

    shots: int = MISSING
    of: Calibration = MISSING


@dataclass
class InterleavedCalibration(Calibration):
    """``conversations`` samples of another set in a row, with a plain text between each two, make one."""

    conversations: int = MISSING
    of: Calibration = MISSING
    text: Calibration = MISSING
