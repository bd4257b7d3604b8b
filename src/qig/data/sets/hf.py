"""Any image-text data set of Hugging Face's formats, by the names of its columns; InfoVQA is a preset of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from qig.data.images import inside
from qig.data.samples import CalibrationSample, Corpus, Picture, Turn
from qig.data.sets.base import CalibrationSet, choose, conversation_or_reason, local, policy_of, printable
from qig.data.sets.tables import Table, open_table
from qig.errors import DataError


class HfSet(CalibrationSet):
    def read(self) -> Corpus:
        table = self._table()
        positions = choose(table.length, self.config, self.config.path)
        samples, skipped = [], {}
        for position, row in zip(positions, table.rows(positions), strict=True):
            name = f"{printable(row[self.config.id_column]) if self.config.id_column else ''}#{position}"
            try:
                samples.append(self._sample(name, row))
            except DataError as error:
                skipped[name] = str(error)
        return Corpus(tuple(samples), skipped)

    def check_available(self) -> None:
        """Raises DataError if the data set, the split, a column or the image folder is absent."""
        folder = self.config.image_folder
        if folder is not None and not local(folder).is_dir():
            raise DataError(f"{self.key('image_folder')}={folder!r} is no directory")
        self._table()

    def _table(self) -> Table:
        config = self.config
        named = (config.prompt_column, config.answer_column, config.id_column)
        columns = [*config.image_columns, *(column for column in named if column is not None)]
        return open_table(config.path, config.name, config.split, columns, self.key("path"))

    def _sample(self, name: str, row: dict[str, Any]) -> CalibrationSample:
        config = self.config
        images = [picture for column in config.image_columns for picture in self._pictures(row[column])]
        prompt = config.prompt if config.prompt_column is None else row[config.prompt_column]
        prompt = prompt.strip() if isinstance(prompt, str) else ""
        if config.prompt_column is not None and not prompt:
            raise DataError(f"has no text in column {config.prompt_column!r}")
        words = (prompt,) if prompt else ()
        content = (*images, *words) if config.image_position == "before" else (*words, *images)
        turns = (Turn("user", content), Turn("assistant", (self._answer(row[config.answer_column]),)))
        reason = conversation_or_reason(turns)
        if reason is not None:
            raise DataError(reason)
        return CalibrationSample(name, (turns,), policy_of(config))

    def _answer(self, value: Any) -> str:
        """One text; of several right answers the first, or all with the joiner between them."""
        several = value if isinstance(value, list) else [value]
        answers = [str(answer).strip() for answer in several if answer is not None and str(answer).strip()]
        return answers[0] if answers and self.config.answers == "first" else self.config.joiner.join(answers)

    def _pictures(self, value: Any) -> list[Picture]:
        """The images of a cell: one, several, or none."""
        pending, found = [value], []
        while pending:  # lists in lists, to whatever depth
            item = pending.pop()
            if isinstance(item, list):
                pending += reversed(item)
            elif item is not None:
                found.append(self._picture(item))
        return found

    def _picture(self, value: Any) -> Picture:
        if isinstance(value, bytes):
            return value
        if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
            return value["bytes"]
        path = value.get("path") if isinstance(value, dict) else value
        if not isinstance(path, str):
            raise DataError(f"has no image, but {type(value).__name__} in an image column")
        return self._file(path)

    def _file(self, path: str) -> Path:
        """A path in an image column, inside the image folder or the data set's own directory."""
        root = local(self.config.image_folder or self.config.path)
        if not root.is_dir():
            raise DataError(f"has the image path {path!r}; set {self.key('image_folder')} to where it begins")
        if os.path.isabs(path):  # as ``datasets`` gives the files of an image folder
            path = os.path.relpath(path, root.absolute())
        return inside(root, path, self.config.follow_links)
