"""Plain text, as language models are calibrated on (the Pile, arXiv 2101.00027; AWQ's and GPTQ's usual data)."""

from __future__ import annotations

from qig.data.samples import CalibrationSample, Corpus, PlainText
from qig.data.sets.base import CalibrationSet, choose
from qig.data.sets.tables import Table, open_table


class Pile(CalibrationSet):
    def read(self) -> Corpus:
        config, table = self.config, self._table()
        positions = choose(table.length, config, config.path)
        samples, skipped = [], {}
        for position, row in zip(positions, table.rows(positions), strict=True):
            name, text = f"#{position}", row[config.text_column]
            if isinstance(text, str) and text.strip():
                samples.append(CalibrationSample(name, (PlainText(text.strip(), config.max_tokens),)))
            else:
                skipped[name] = "has no text"
        return Corpus(tuple(samples), skipped)

    def check_available(self) -> None:
        """Raises DataError if the data set, the split or the text column is absent."""
        self._table()

    def _table(self) -> Table:
        config = self.config
        return open_table(config.path, config.name, config.split, [config.text_column], self.key("path"))
