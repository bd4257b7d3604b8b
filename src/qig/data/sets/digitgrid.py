"""Captions of DigitGrid scenes, the embedded task."""

from __future__ import annotations

from qig.data.digitgrid.benchmark import calibration_samples
from qig.data.samples import Corpus
from qig.data.sets.base import CalibrationSet


class DigitGrid(CalibrationSet):
    def read(self) -> Corpus:
        return Corpus(tuple(calibration_samples(self.config.samples, self.config.seed)))

    def content_hash(self) -> str:
        """Constant: seed and number of samples decide everything, and both are configured."""
        return "digitgrid"
