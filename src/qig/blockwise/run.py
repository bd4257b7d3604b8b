"""The block pass: attribute, equalize, round and propagate, one decoder block after the other.

Afterwards the model in memory is the quantized model, and the folder holds the integers it is derived from. A pass
that finds finished blocks in its folder loads them, sends both streams through them and goes on behind them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from qig.blockwise.artefact import apply_block, block_folder, install, read_record, save_block
from qig.blockwise.streams import Streams
from qig.blockwise.timing import Stopwatch
from qig.config.schema import Config
from qig.data.calibration import CalibrationBatch
from qig.equalization import equalizer
from qig.models.architectures import Site
from qig.models.folding import fold, foldable
from qig.models.loading import LoadedModel
from qig.quantization.linear import substituted
from qig.quantization.setting import Setting
from qig.rounding import rounder
from qig.sensitivity import estimator
from qig.sensitivity.estimator import SiteView
from qig.sensitivity.weights import TokenWeights, token_weights


class BlockPass:
    """One calibration: a model, its calibration batches (none if the method needs none), and where results go."""

    def __init__(
        self, loaded: LoadedModel, batches: list[CalibrationBatch], config: Config, device: torch.device, folder: Path
    ) -> None:
        self.loaded = loaded
        self.config = config
        self.device = device
        self.folder = folder
        self.batches = batches
        self.setting = Setting.of(config.quant)
        self.estimator = estimator(config.sensitivity)
        self.equalizer = equalizer(config.equalization)
        self.round = rounder(config.rounding)
        self.stopwatch = Stopwatch()

    def run(self) -> list[dict[str, Any]]:
        """Quantize every block; returns the record of each (sites searched, seconds by stage)."""
        blocks = self.loaded.blocks
        weighted = self.equalizer is not None and self.equalizer.needs_weights
        if weighted:
            with self.stopwatch("attribution"):
                self.estimator.prepare(self.loaded, self.batches, self.device)
        with self.stopwatch("capture"):
            streams = Streams(
                self.loaded, self.batches, self.device, weighted and self.estimator.needs_quantized_stream
            )
        records = []
        for index in tqdm(range(len(blocks)), desc="quantizing blocks", unit="block", leave=False):
            folder = block_folder(self.folder, index)
            record = read_record(folder)
            if record is None:
                record = self._quantize(index, blocks[index], streams, folder)
            else:
                with self.stopwatch("propagation"):
                    streams.advance(index, blocks[index], None)
                    apply_block(folder, blocks[index], self.setting)
                    streams.advance(index, None, blocks[index])
            records.append(record)
        return records

    def _quantize(self, index: int, block: nn.Module, streams: Streams, folder: Path) -> dict[str, Any]:
        """Find and fold the scales of a block's sites, round its linears, move both streams behind it."""
        watch = Stopwatch()
        sites = [
            s for s in self.loaded.architecture.sites if s.name in self.config.equalization.sites and foldable(block, s)
        ]
        with watch("capture"):
            exact_calls, outputs = streams.site_calls(index, block, sites, "exact")
        site_records, findings = [], {}
        for site in sites:
            quantized_calls = None
            if streams.quantized is not None:
                with watch("attribution"), self._rounded_for_now(block):
                    quantized_calls = streams.site_calls(index, block, [site], "quantized")[0][site.name]
            view = SiteView(index, block, site, self.setting, exact_calls[site.name], quantized_calls, streams.kinds)
            weights = None
            if self.equalizer.needs_weights:
                with watch("attribution"):
                    weights = token_weights(self.estimator, view, self.config.sensitivity)
                findings[f"block.{index}.{site.name}"] = self._flat(weights.values)
            with watch("search"):
                scale = self.equalizer.scale(view, weights.values if weights else None)
                fold(block, site, scale.value)
            findings[f"scale.{index}.{site.name}"] = scale.value.cpu()
            site_records.append(_site_record(index, site, weights, scale, self.config.sensitivity.kind))
        with watch("rounding"):
            for name, linear in self.setting.selected(block).items():
                install(block, name, self.setting, self.round(linear, self.setting), linear.bias, linear.weight.dtype)
        with watch("propagation"):
            streams.exact = outputs
            streams.advance(index, None, block)
        record = {"sites": site_records, "seconds": watch.seconds}
        save_block(folder, block, findings, record)
        return record

    @contextmanager
    def _rounded_for_now(self, block: nn.Module) -> Iterator[None]:
        """All linears of the block quantized with the scales folded so far: what produces x_q inside the block."""
        linears = {
            name: self.setting.rounded(self.round(linear, self.setting), linear.bias, linear.weight.dtype)
            for name, linear in self.setting.selected(block).items()
        }
        with substituted(block, linears):
            yield

    def _flat(self, values: list[Tensor]) -> Tensor:
        """Weights of all real tokens, sample after sample in the order of the calibration set: ``[tokens]`` float32."""
        rows = {
            position: values[i][row][batch.real[row].to(values[i].device)].float().cpu()
            for i, batch in enumerate(self.batches)
            for row, position in enumerate(batch.order)
        }
        return torch.cat([rows[position] for position in sorted(rows)])


def _site_record(index: int, site: Site, weights: TokenWeights | None, scale, estimator_name: str) -> dict[str, Any]:
    scores = weights.scores if weights else None
    return {
        "block": index,
        "site": site.name,
        "estimator": estimator_name if scores else None,
        "fallback": scores.fallback if scores else None,
        "completeness": scores.completeness if scores else None,
        "nodes": scores.nodes if scores else None,
        "exponents": scale.exponents,
        "losses": scale.losses,
        "exponent": scale.exponent,
    }
