"""Published directories of both text models, and what their conversion makes of them; written once a session."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from families import internvl2
from qig.models.internvl2 import convert


@dataclass(frozen=True)
class Converted:
    """``tensors`` and ``settings`` are the published ones."""

    original: Path
    native: Path
    settings: dict
    tensors: dict[str, Tensor]

    def model(self) -> torch.nn.Module:
        """In float64, so that what differs is not the arithmetic."""
        from transformers import AutoModelForImageTextToText

        return AutoModelForImageTextToText.from_pretrained(self.native, dtype=torch.float64).eval()

    def processor(self):
        from transformers import AutoProcessor

        return AutoProcessor.from_pretrained(self.native)


def converted_into(folder: Path, **options) -> Converted:
    settings, tensors = internvl2.write(folder / "original", **options)
    (folder / "native").mkdir()
    convert(folder / "original", folder / "native")
    return Converted(folder / "original", folder / "native", settings, tensors)


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """``published("internlm2", "6b")``: the published directory, its conversion and its tensors."""

    @cache
    def once(text: str, vision: str = "300m") -> Converted:
        return converted_into(tmp_path_factory.mktemp("internvl2"), text=text, vision=vision)

    return once


@pytest.fixture(params=["internlm2", "qwen2"])
def both(request, published) -> Converted:
    return published(request.param)
