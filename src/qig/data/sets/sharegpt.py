"""Records of ShareGPT4V's form: a JSON or JSONL file and a folder of images.

A record is ``{"id", "image": path or paths, "conversations": [{"from": "human" or "gpt", "value"}]}``; ``<image>`` in
a value stands for the next image (ShareGPT4V, arXiv 2311.12793; the calibration data of MBQ and QIG).
"""

from __future__ import annotations

from typing import Any

from qig.data.images import inside
from qig.data.samples import CalibrationSample, Corpus, Picture, Turn
from qig.data.sets.base import CalibrationSet, choose, conversation_or_reason, local, policy_of, printable
from qig.data.sets.json_records import records_of
from qig.errors import DataError, choices

MARK = "<image>"
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


class ShareGpt(CalibrationSet):
    def read(self) -> Corpus:
        candidates = self._candidates()
        samples, skipped = [], {}
        for index in choose(len(candidates), self.config, f"{self.config.path} ({self._filter})"):
            position, record = candidates[index]
            name = f"{printable(record.get('id', ''))}#{position}" if isinstance(record, dict) else f"#{position}"
            try:
                samples.append(self._sample(name, record))
            except DataError as error:
                skipped[name] = str(error)
        return Corpus(tuple(samples), skipped)

    def check_available(self) -> None:
        """Raises DataError if the file or the folder is absent, or no record passes the filter."""
        folder = local(self.config.image_folder)
        if not folder.is_dir():
            raise DataError(f"{self.key('image_folder')}={self.config.image_folder!r} is no directory")
        if not self._candidates():
            raise DataError(
                f"{self.key('path')}={self.config.path!r} has no record with {self._filter}; another "
                f"{self.key('image_prefix')}, or null for all records"
            )
        prefix, follow = self.config.image_prefix, self.config.follow_links
        if prefix is not None and prefix.endswith("/") and not inside(folder, prefix, follow).is_dir():
            raise DataError(
                f"{self.key('image_folder')}={self.config.image_folder!r} has no folder {prefix!r}; expected the "
                f"folder in which the records' image paths begin (they begin with {prefix!r})"
            )

    @property
    def _filter(self) -> str:
        prefix = self.config.image_prefix
        return "any image" if prefix is None else f"image paths that begin with {prefix!r}"

    def _candidates(self) -> list[tuple[int, Any]]:
        """Position and record of what passes the filter; without one, of everything."""
        records, prefix = records_of(self.config.path, self.key("path")), self.config.image_prefix
        return [
            (position, record)
            for position, record in enumerate(records)
            if prefix is None or any(path.startswith(prefix) for path in _paths(record))
        ]

    def _sample(self, name: str, record: Any) -> CalibrationSample:
        if not isinstance(record, dict) or not isinstance(record.get("conversations"), list):
            turns = '[{"from": "human" or "gpt", "value": text}, ...]'
            raise DataError(f"is no record with a list of conversations: {turns}")
        folder = local(self.config.image_folder)
        images: list[Picture] = [inside(folder, path, self.config.follow_links) for path in _paths(record)]
        turns = [_turn(entry) for entry in record["conversations"]]
        marks = sum(turn.content.count(MARK) for turn in turns)
        if not marks and images and turns:
            turns[0] = Turn(turns[0].role, (*[MARK] * len(images), *turns[0].content))
        elif marks != len(images):
            raise DataError(f"has {len(images)} images, but {marks} {MARK} in its conversations")
        left = iter(images)
        placed = tuple(Turn(t.role, tuple(next(left) if part == MARK else part for part in t.content)) for t in turns)
        reason = conversation_or_reason(placed)
        if reason is not None:
            raise DataError(reason)
        return CalibrationSample(name, (placed,), policy_of(self.config))


def _paths(record: Any) -> list[str]:
    found = record.get("image") if isinstance(record, dict) else None
    found = found if isinstance(found, list) else [found]
    return [path for path in found if isinstance(path, str)]


def _turn(entry: Any) -> Turn:
    """One turn; an image is still its mark."""
    role, value = (entry.get("from"), entry.get("value")) if isinstance(entry, dict) else (None, None)
    if not isinstance(value, str) or not isinstance(role, str):
        raise DataError("has a turn without 'from' and 'value'")
    if role not in ROLES:
        raise DataError(choices(role, ROLES, "speaker"))
    first, *others = (piece.strip() for piece in value.split(MARK))
    parts = [first, *(part for piece in others for part in (MARK, piece))]
    return Turn(ROLES[role], tuple(part for part in parts if part))

