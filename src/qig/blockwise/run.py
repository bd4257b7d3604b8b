"""The block pass: attribute, equalize, round and propagate, one decoder block after the other.

Afterwards the model in memory is the quantized model, and the folder holds the integers it is derived from. A pass
that finds finished blocks in its folder loads them, sends both streams through them and goes on behind them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from qig.blockwise.artefact import apply_block, block_folder, read_record, save_block
from qig.blockwise.block import BlockWork
from qig.blockwise.methods import Methods
from qig.blockwise.streams import Streams
from qig.blockwise.timing import Stopwatch
from qig.config.schema import Config
from qig.data.calibration import CalibrationBatch
from qig.models.loading import LoadedModel


class BlockPass:
    """One calibration: a model, its calibration batches (none if the method needs none), and where results go."""

    def __init__(
        self, loaded: LoadedModel, batches: list[CalibrationBatch], config: Config, device: torch.device, folder: Path
    ) -> None:
        self.loaded = loaded
        self.batches = batches
        self.methods = Methods.of(config)
        self.device = device
        self.folder = folder
        self.stopwatch = Stopwatch()

    def run(self) -> list[dict[str, Any]]:
        """Quantize every block; returns the record of each (sites searched, seconds by stage)."""
        blocks, methods = self.loaded.blocks, self.methods
        if methods.weighted:
            with self.stopwatch("attribution"):
                methods.estimator.prepare(self.loaded, self.batches, self.device)
        with self.stopwatch("capture"):
            streams = Streams(self.loaded, self.batches, self.device, methods.needs_quantized_stream)
        records = []
        for index in tqdm(range(len(blocks)), desc="quantizing blocks", unit="block", leave=False, disable=None):
            folder = block_folder(self.folder, index)
            record = read_record(folder)
            if record is None:
                work = BlockWork(index, blocks[index], self.loaded.architecture.sites, methods, streams)
                work.run()
                record = {"sites": work.records, "seconds": work.watch.seconds}
                save_block(folder, blocks[index], work.findings, record)
            else:
                with self.stopwatch("propagation"):
                    streams.advance(index, blocks[index], None)
                    apply_block(folder, blocks[index], methods.setting)
                    streams.advance(index, None, blocks[index])
            records.append(record)
        return records
