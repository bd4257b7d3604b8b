"""The quantization stage: from a resolved configuration to a folder with the quantized model and how it was found."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from qig.blockwise.activations import Activations
from qig.blockwise.artefact import block_folder
from qig.blockwise.run import BlockPass
from qig.blockwise.timing import PeakMemory, Stopwatch, larger
from qig.config.schema import Config, GptqRounding, ModalityGradientSensitivity, Sensitivity
from qig.config.validation import needs_calibration
from qig.data.calibration import CalibrationBatch, CalibrationData, calibration_data
from qig.data.tokens import TokenKind
from qig.models.checkpoint import content_hash, resolve
from qig.models.loading import LoadedModel, open_model
from qig.quantization.setting import Setting
from qig.quantized import RECORD, model_bytes
from qig.sensitivity.granularity import under_control
from qig.sensitivity.modality_gradient import MODALITIES
from qig.sensitivity.shared_gradients import Place, SharedGradients
from qig.store import write_json

log = logging.getLogger(__name__)


def quantize(config: Config, device: torch.device, folder: Path, gradients: Place | None = None) -> None:
    """Quantize the configured model block by block; leave in ``folder`` blocks, token weights, scales and the record.

    The model is never whole in memory: one block and what ``memory.activations`` keeps on the device are.
    ``gradients``: where whole-model gradients are kept and shared, if the method reads any.
    """
    watch = Stopwatch(device)
    activations = Activations(device, config.memory.activations, folder / "activations")
    with PeakMemory(device) as memory:
        with watch("calibration"):
            loaded = open_model(config.model, device)
            data = _calibration(loaded, config)
            batches = data.batches
            _doubt_rank(loaded, batches, config)
        shared = SharedGradients(gradients, memory)
        block_pass = BlockPass(loaded, batches, config, activations, folder, shared)
        with watch("quantization"):
            blocks = block_pass.run()
        watch.add("quantization", block_pass.earlier)
    activations.close()
    sites = [site for block in blocks for site in block["sites"]]
    _tell_fallbacks(sites)
    sensitivity, scales = _gather(folder, len(blocks))
    if sensitivity:
        sensitivity |= _tokens(batches)
    save_file(sensitivity, folder / "sensitivity.safetensors")
    save_file(scales, folder / "scales.safetensors")
    stages = Counter(block_pass.stopwatch.seconds)
    for block in blocks:
        stages.update(block["seconds"])
    write_json(
        folder / RECORD,
        {
            "model": asdict(config.model),
            "checkpoint_sha256": content_hash(resolve(config.model.path)),
            "quant": asdict(config.quant),
            "sites": sites,
            "timings": {**watch.seconds, **stages},
            "memory": larger(memory.so_far(), shared.memory_bytes),
            "model_bytes": model_bytes(loaded, Setting.of(config.quant)),
            "calibration": data.record() if batches else None,
        },
    )


def _calibration(loaded: LoadedModel, config: Config) -> CalibrationData:
    if not needs_calibration(config):
        return CalibrationData([], {})
    return calibration_data(config.calibration, loaded.processor, loaded.model, loaded.image_token_ids)


def _doubt_rank(loaded: LoadedModel, batches: list[CalibrationBatch], config: Config) -> None:
    """Of fewer weighted tokens than a linear has inputs, second moments lack rank: damping alone decides the rest."""
    if not isinstance(config.rounding, GptqRounding):
        return
    tokens = sum(int(_weighed(batch.kinds, config.sensitivity).sum()) for batch in batches)
    widest = max(linear.in_features for linear in Setting.of(config.quant).selected(loaded.blocks[0]).values())
    if tokens < widest:
        few = f"rounding={config.rounding.kind}: {tokens:,} calibration tokens with weight"
        log.warning("%s for linears of up to %s inputs leave second moments without full rank; take more, "
                    "calibration.samples=N", few, f"{widest:,}")


def _weighed(kinds: Tensor, sensitivity: Sensitivity) -> Tensor:
    """Where tokens may have weight: ``[batch, tokens]`` booleans."""
    if isinstance(sensitivity, ModalityGradientSensitivity):
        return torch.isin(kinds, torch.tensor(MODALITIES, device=kinds.device))
    return under_control(kinds, sensitivity.granularity, sensitivity.control) != TokenKind.PADDING


def _tell_fallbacks(sites: list[dict[str, Any]]) -> None:
    """Where an estimator had nothing to say: its tokens all weigh the same, under its name."""
    weighted = [site for site in sites if site["estimator"] is not None]
    for reason, count in Counter(site["fallback"] for site in weighted if site["fallback"]).items():
        level = logging.WARNING if count == len(weighted) else logging.INFO
        estimator, sites_of_all = weighted[0]["estimator"], f"{count} of {len(weighted)} sites"
        log.log(level, "%s: uniform weights at %s: %s", estimator, sites_of_all, reason)


def _tokens(batches: list[CalibrationBatch]) -> dict[str, Tensor]:
    """``kinds`` uint8 and ``sample`` int32, ``[tokens]``: what each weight in the sensitivity file belongs to."""
    rows = {
        position: batch.kinds[row][batch.real[row]] for batch in batches for row, position in enumerate(batch.order)
    }
    kinds = [rows[position] for position in sorted(rows)]
    sample = [torch.full((len(kind),), position, dtype=torch.int32) for position, kind in enumerate(kinds)]
    return {"kinds": torch.cat(kinds), "sample": torch.cat(sample)}


def _gather(folder: Path, blocks: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Token weights and scales of all blocks, from the files of the single blocks."""
    found: dict[str, Tensor] = {}
    for index in range(blocks):
        file = block_folder(folder, index) / "findings.safetensors"
        found |= load_file(file)
    sensitivity = {name: value for name, value in found.items() if name.startswith("block.")}
    return sensitivity, {name: value for name, value in found.items() if name.startswith("scale.")}
