"""The block pass: attribute, equalize, round and propagate, one decoder block after the other.

Afterwards the folder holds the integers of the quantized model; a model that was whole in memory has become it. A
pass that finds finished blocks in its folder loads them, sends both streams through them and goes on behind them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from tqdm import tqdm

from qig.blockwise.activations import Activations
from qig.blockwise.artefact import apply_block, block_folder, read_record, save_block
from qig.blockwise.block import BlockWork
from qig.blockwise.methods import Methods
from qig.blockwise.streams import Streams
from qig.blockwise.timing import Stopwatch
from qig.config.schema import Config
from qig.data.calibration import CalibrationBatch
from qig.models.loading import LoadedModel
from qig.sensitivity.estimator import WholeModel
from qig.sensitivity.shared_gradients import SharedGradients


class BlockPass:
    """One calibration: a model, its calibration batches (none if the method needs none), where results go, and
    where whole-model gradients are kept.

    ``earlier``: seconds that other runs and attempts spent on what this pass found, gradients and blocks.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        batches: list[CalibrationBatch],
        config: Config,
        activations: Activations,
        folder: Path,
        shared: SharedGradients | None = None,
    ) -> None:
        self.loaded = loaded
        self.batches = batches
        self.methods = Methods.of(config)
        self.activations = activations
        self.folder = folder
        self.shared = shared or SharedGradients()
        self.stopwatch = Stopwatch(activations.device)
        self.earlier = 0.0

    def run(self) -> list[dict[str, Any]]:
        """Quantize every block; returns the record of each (sites searched, seconds by stage)."""
        loaded, methods = self.loaded, self.methods
        if methods.weighted:
            with self.stopwatch("attribution"):
                methods.estimator.prepare(WholeModel(loaded, self.batches, self.activations, self.shared))
            self.stopwatch.add("attribution", self.shared.elsewhere)
            self.earlier += self.shared.elsewhere
        with self.stopwatch("capture"):
            streams = Streams(loaded, self.batches, self.activations, methods.needs_quantized_stream)
        records = []
        for index in tqdm(range(len(loaded.blocks)), desc="quantizing blocks", unit="block", leave=False, disable=None):
            with loaded.block(index) as block:
                records.append(self._block(index, block, streams))
        return records

    def _block(self, index: int, block: nn.Module, streams: Streams) -> dict[str, Any]:
        """Quantize one block, or load what an earlier attempt made of it; both streams move behind it."""
        folder = block_folder(self.folder, index)
        record = read_record(folder)
        if record is None:
            work = BlockWork(index, block, self.loaded.architecture.sites, self.methods, streams)
            work.run()
            watch = work.watch
            record = {"sites": work.records, "seconds": watch.seconds, "work_seconds": watch.work_seconds}
            save_block(folder, block, work.findings, record)
        else:
            self.earlier += sum(record["seconds"].values())
            with self.stopwatch("propagation"):
                streams.advance(index, block, None)
                apply_block(folder, block, self.methods.setting)
                streams.advance(index, None, block)
        return record
