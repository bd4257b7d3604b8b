"""What is kept of each evaluated sample."""

from __future__ import annotations

import ast
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_SAMPLE_KEYS = ("id", "question_id", "questionId")
_CLUSTER_KEYS = ("image_id", "image_name", "videoID")
_TYPE_KEYS = ("type", "question_type")
_PICTURES_AT_ONCE = 32


def sample_records(
    task: str, docs: Sequence[dict], doc_ids: Sequence[int], pictures: Sequence[str]
) -> list[dict[str, str]]:
    """``sample``, ``cluster`` and ``type`` of each document, as strings; ``pictures``: see :func:`picture_hashes`.

    A sample is named by the dataset where its names are unique, else by its place in the split; the cluster is its
    image as the dataset names it, else by the picture's hash, or the sample itself where there is none; the type may
    be empty.
    """
    names = [_first(doc, _SAMPLE_KEYS) for doc in docs]
    if "" in names or len(set(names)) < len(names):
        names = [str(doc_id) for doc_id in doc_ids]
    return [
        {
            "task": task,
            "sample": name,
            "cluster": _first(doc, _CLUSTER_KEYS) or picture or name,
            "type": _first(doc, _TYPE_KEYS),
        }
        for name, doc, picture in zip(names, docs, pictures, strict=True)
    ]


def picture_hashes(split: Any, doc_ids: Sequence[int]) -> list[str]:
    """A hash of each document's pictures as the dataset's files hold them, undecoded; empty where it has none.

    ``split``: a :class:`datasets.Dataset`; of what else a task may return as its documents nothing is known.
    """
    shown = [name for name, feature in getattr(split, "features", {}).items() if _holds_pictures(feature)]
    if not shown:
        return [""] * len(doc_ids)
    hashes = []
    for part in split.select(doc_ids).select_columns(shown).with_format("arrow").iter(batch_size=_PICTURES_AT_ONCE):
        hashes += [_picture_hash([row[name] for name in shown]) for row in part.to_pylist()]
    return hashes


def _holds_pictures(feature: Any) -> bool:
    from datasets import Image

    return isinstance(feature, Image) or (feature is not None and _holds_pictures(getattr(feature, "feature", None)))


def _picture_hash(values: list[Any]) -> str:
    """``values``: a picture as ``{"bytes", "path"}``, a list of such, or None, a column each."""
    every = [picture for value in values for picture in (value if isinstance(value, list) else [value])]
    contents = [picture["bytes"] or picture["path"].encode() for picture in every if picture is not None]
    digests = [hashlib.sha256(content).hexdigest() for content in contents]
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16] if digests else ""


def documents_hash(docs: Sequence[dict]) -> str:
    """SHA-256 over what documents say in words and numbers; of anything else, such as a picture, its kind alone."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): plain(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(inner) for inner in value]
        return value if value is None or isinstance(value, (str, int, float)) else type(value).__name__

    return hashlib.sha256(json.dumps([plain(doc) for doc in docs], sort_keys=True).encode()).hexdigest()


def target_text(task, doc: dict) -> str:
    """The expected answer of a loaded task's document in words, or empty where the task has none.

    The most frequent one where a document has several, be it as a list written as text, as in MMMU; the option's text
    where the task counts options.
    """
    rule = task.config.doc_to_target
    if isinstance(rule, str) and rule not in doc and "{" not in rule:
        target = doc.get("answers") or ""  # some tasks name a field they do not have, and score by all answers
    else:
        target = task.doc_to_target(doc)
    if isinstance(target, int) and task.config.doc_to_choice is not None:
        target = task.doc_to_choice(doc)[target]
    target = _listed(target)
    if isinstance(target, (list, tuple)):
        target = Counter(map(str, target)).most_common(1)[0][0] if target else ""
    return str(target).strip()


def _listed(target: Any) -> Any:
    """The list of texts that a text writes out in Python's form, or what came."""
    if not (isinstance(target, str) and target.startswith("[") and target.endswith("]")):
        return target
    try:
        found = ast.literal_eval(target)
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # the last two: of a nest too deep
        return target
    return found if found and all(isinstance(one, str) for one in found) else target


def _first(doc: dict[str, Any], keys: Sequence[str]) -> str:
    return next((str(doc[key]) for key in keys if doc.get(key) not in (None, "")), "")
