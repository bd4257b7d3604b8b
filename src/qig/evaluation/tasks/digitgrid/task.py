"""The DigitGrid task of lmms-eval. Its questions are drawn from their seed in memory: no hub, no cache, no lock."""

from __future__ import annotations

import io
from functools import cache

from datasets import Dataset, DatasetDict, Features, Image, Value
from lmms_eval.api.task import ConfigurableMessagesTask

from qig.data.digitgrid import evaluation_set


class DigitGrid(ConfigurableMessagesTask):
    """A YAML task whose documents come from ``evaluation_set`` instead of from a downloaded dataset."""

    def __init__(self, config: dict) -> None:
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    def download(self, dataset_kwargs: dict) -> None:
        """``dataset_kwargs`` are those of ``evaluation_set``."""
        split, documents = self.config.test_split, _documents(**dataset_kwargs)
        self.dataset = DatasetDict({split: documents})
        self.dataset_no_image = DatasetDict({split: documents.remove_columns("image")})


@cache  # a second of work, which all runs of a sweep's process share
def _documents(**dataset_kwargs: int) -> Dataset:
    items = evaluation_set(**dataset_kwargs)
    # Questions share pictures, so each picture is compressed once.
    pictures = {item.image_id: item.image for item in items}
    encoded = {image_id: {"bytes": _png(picture), "path": None} for image_id, picture in pictures.items()}
    texts = ("id", "image_id", "question", "answer", "type")
    columns = {name: [getattr(item, name) for item in items] for name in texts}
    columns["image"] = [encoded[item.image_id] for item in items]
    features = Features({**{name: Value("string") for name in texts}, "image": Image()})
    return Dataset.from_dict(columns, features=features)


def process_results(doc: dict, results: list[str]) -> dict[str, float]:
    """1 where the answer is the expected word, else 0; once overall and once under the question's type."""
    score = float(results[0].strip() == doc["answer"])
    return {"accuracy": score, f"accuracy_{doc['type']}": score}


def _png(picture) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
