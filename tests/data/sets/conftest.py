"""Small annotation files, tables and image folders."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from qig.config.schema import HfCalibration, PileCalibration, ShareGptCalibration


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """``datasets`` keeps what it makes of a file outside the user's cache."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def record(number: int, folder: str = "coco/train2017", answer: str = "it shows red .") -> dict:
    return {
        "id": f"{number:012d}",
        "image": f"{folder}/{number:012d}.jpg",
        "conversations": [
            {"from": "human", "value": "<image>\ndescribe the image ."},
            {"from": "gpt", "value": f"{answer} {number}"},
        ],
    }


class Folder:
    """A folder of COCO's layout, and the annotation file beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "coco" / "train2017").mkdir(parents=True)

    def image(self, number: int) -> Path:
        path = self.root / "coco" / "train2017" / f"{number:012d}.jpg"
        Image.new("RGB", (48, 48), (number % 256, 100, 50)).save(path)
        return path

    def records(self, records, name: str = "captions.json") -> str:
        path = self.root / name
        lines = "\n".join(map(json.dumps, records)) + "\n" if name.endswith("l") else json.dumps(records)
        path.write_text(lines)
        return str(path)

    def config(self, path: str, samples: int = 4, **values) -> ShareGptCalibration:
        common = {"kind": "sharegpt", "seed": 0, "tokens_per_batch": 1000, "max_skipped_share": 0.0}
        own = {"image_folder": str(self.root), "image_prefix": "coco/", "images": "native", "max_pixels": None}
        own["follow_links"] = False
        return ShareGptCalibration(**common | own | {"path": path, "samples": samples} | values)


@pytest.fixture
def coco(tmp_path) -> Folder:
    return Folder(tmp_path / "data")


@pytest.fixture
def ten(coco) -> str:
    """Ten records with their images."""
    for number in range(10):
        coco.image(number)
    return coco.records([record(number) for number in range(10)])


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (48, 40 + number), (number, 100, 50)).save(buffer, "PNG")
    return buffer.getvalue()


def hf(path, samples: int = 4, **values) -> HfCalibration:
    own = {"name": None, "split": "train", "image_columns": ["image"], "image_folder": None, "image_position": "before",
           "max_pixels": None, "follow_links": False}
    text = {"prompt_column": "question", "prompt": None, "answer_column": "answers", "answers": "joined"}
    common = {"kind": "hf", "seed": 0, "tokens_per_batch": 1000, "max_skipped_share": 0.0, "images": "native"}
    rest = {"joiner": " | ", "id_column": None, "path": str(path), "samples": samples}
    return HfCalibration(**common | own | text | rest | values)


def pile(path, samples: int = 4, **values) -> PileCalibration:
    own = {"name": None, "split": "train", "text_column": "text", "max_tokens": 6}
    common = {"kind": "pile", "seed": 0, "tokens_per_batch": 1000, "max_skipped_share": 0.0}
    return PileCalibration(**common | own | {"path": str(path), "samples": samples} | values)


@pytest.fixture
def make_hf():
    return hf


@pytest.fixture
def make_pile():
    return pile


@pytest.fixture
def make_record():
    return record


@pytest.fixture
def make_png():
    return png
