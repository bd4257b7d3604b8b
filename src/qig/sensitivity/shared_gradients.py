"""Whole-model gradients that runs share: made once for a model and a calibration set, whatever reads them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from qig.blockwise.activations import Activations
from qig.blockwise.timing import PeakMemory
from qig.data.calibration import CalibrationBatch
from qig.models.loading import LoadedModel
from qig.sensitivity.gradients import output_gradients
from qig.sensitivity.kept_gradients import RECORD, Gradients, KeptGradients

Place = Callable[[Callable[[Path], None]], Path]
"""Where gradients are kept: given what makes them in a folder, the folder that has them."""


class SharedGradients:
    """The gradients of one model and calibration.

    Args:
        place: where they are kept and shared; None: in memory, for this pass alone.
        memory: the peak of this process, noted beside gradients that it makes.

    Attributes:
        elsewhere: seconds that another run, or an earlier attempt, spent on what this one found.
        memory_bytes: the peaks while they were made, if they are kept.
    """

    def __init__(self, place: Place | None = None, memory: PeakMemory | None = None) -> None:
        self._place, self._memory = place, memory
        self.elsewhere = 0.0
        self.memory_bytes: dict[str, int | None] = {}

    def of(
        self, loaded: LoadedModel, batches: Sequence[CalibrationBatch], activations: Activations
    ) -> list[Gradients]:
        """At the outputs of each half of the blocks, on the device; see ``output_gradients``."""
        names = sorted({site.block_output for site in loaded.architecture.sites})
        if self._place is None:
            return output_gradients(loaded, batches, names, activations)
        blocks, start = len(loaded.blocks), time.perf_counter()

        def build(folder: Path) -> None:
            kept = KeptGradients(folder, blocks)
            output_gradients(loaded, batches, names, activations, kept)
            kept.close({} if self._memory is None else self._memory.so_far())

        folder = self._place(build)
        record = json.loads((folder / RECORD).read_text())
        self.elsewhere = max(0.0, record["seconds"] - (time.perf_counter() - start))
        self.memory_bytes = record["memory"]
        device = activations.device
        return [
            {name: [x.to(device) for x in found] for name, found in gradients.items()}
            for gradients in KeptGradients(folder, blocks).read(names)
        ]
