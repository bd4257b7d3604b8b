"""Plain text from Python's own documentation: nothing has to be downloaded to calibrate a language model."""

from __future__ import annotations

from qig.data.python_docs import CALIBRATION, passages
from qig.data.samples import CalibrationSample, Corpus, PlainText
from qig.data.sets.base import CalibrationSet, choose


class PythonDocs(CalibrationSet):
    def read(self) -> Corpus:
        available = passages(CALIBRATION)
        chosen = choose(len(available), self.config, "Python's documentation")
        samples = (
            CalibrationSample(available[i].name, (PlainText(available[i].text, self.config.max_tokens),))
            for i in chosen
        )
        return Corpus(tuple(samples))

    def check_available(self) -> None:
        """Raises DataError if this Python came without its documentation."""
        passages(CALIBRATION)
