"""``python -m qig.report.activations``: how large the inputs of a block's linears are, token by channel.

Runs the 16-bit model on one calibration sample and keeps ``|x|`` in front of the first linear of each equalization
site (q, o, gate, down) of two blocks, as the data and the figure ``activation_magnitude``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from qig.blockwise.capture import recording
from qig.commands import told
from qig.data.calibration import CalibrationBatch
from qig.errors import ConfigError
from qig.models.loading import LoadedModel
from qig.report.records import TOKEN_KINDS

MOST_BINS = 96
CPU = torch.device("cpu")


@torch.no_grad()
def magnitudes(loaded: LoadedModel, batch: CalibrationBatch, blocks: Sequence[int]) -> pd.DataFrame:
    """``|x|`` at each site of ``blocks`` for the first sample of ``batch``: a row a block, linear and token.

    Columns: ``block, linear, channels, position, kind, c0, c1, ...``. Neighbouring channels share a column where there
    are more than MOST_BINS: their largest, so that no outlier is lost. ConfigError for a block that is not there.
    """
    absent = [block for block in blocks if not 0 <= block < len(loaded.blocks)]
    if absent:
        raise ConfigError(f"no block {absent[0]}: the model has blocks 0 to {len(loaded.blocks) - 1}")
    linears = {(block, site.consumers[0]): loaded.blocks[block].get_submodule(site.consumers[0])
               for block in blocks for site in loaded.architecture.sites}
    named = {f"{block} {name}": module for (block, name), module in linears.items()}
    with recording(named) as calls:
        loaded.model(**batch.inputs, use_cache=False, logits_to_keep=1)
    real = batch.real[0]
    kinds = [TOKEN_KINDS[code] for code in batch.kinds[0][real].tolist()]
    parts = []
    for block, name in linears:
        x = calls[f"{block} {name}"].x[0][real].float().abs().numpy()
        about = {"block": block, "linear": name, "channels": x.shape[1], "position": range(len(x)), "kind": kinds}
        binned = binned_maximum(x)
        values = pd.DataFrame(binned, columns=[f"c{i}" for i in range(binned.shape[1])])
        parts.append(pd.DataFrame(about).join(values))
    return pd.concat(parts, ignore_index=True)


def binned_maximum(x: np.ndarray, most: int = MOST_BINS) -> np.ndarray:
    """``[tokens, channels]`` -> ``[tokens, bins]``: the largest of each of at most ``most`` runs of equal length."""
    bins = min(most, x.shape[1])
    starts = np.arange(bins) * x.shape[1] // bins
    return np.maximum.reduceat(x, starts, axis=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 after a message about what cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m qig.report.activations", description=__doc__)
    parser.add_argument("overrides", nargs="*", help="the model and calibration set, as for qig: model=tiny_internvl")
    parser.add_argument("--blocks", nargs=2, type=int, help="two decoder blocks (default: the second and the last)")
    parser.add_argument("--sample", type=int, default=0, help="which calibration sample (default: 0)")
    parser.add_argument("--to", type=Path, required=True, help="folder to write the CSV, PDF and PNG into")
    options = parser.parse_args(arguments)
    wanted = (options.overrides, options.blocks, options.sample, options.to)
    return told("qig.report.activations", lambda: print(*_write(*wanted), sep="\n"))


def _write(overrides: Sequence[str], blocks: Sequence[int] | None, sample: int, folder: Path) -> list[Path]:
    from qig.config.composed import composed
    from qig.config.validation import resolve
    from qig.data.calibration import collate, samples_of
    from qig.environment import quiet
    from qig.models import checkpoint
    from qig.models.loading import load
    from qig.report.figures.files import slug, write
    from qig.stages import decide

    quiet()
    config = resolve(composed(["tracking=none", *overrides]))
    decide(config, checkpoint.resolve(config.model.path))
    samples = samples_of(config.calibration)
    if not 0 <= sample < len(samples):
        raise ConfigError(f"no calibration sample {sample}: the set has samples 0 to {len(samples) - 1}")
    loaded = load(config.model, CPU)
    (batch,) = collate([samples[sample]], loaded.processor, loaded.model, loaded.image_token_ids, 1)
    found = magnitudes(loaded, batch, blocks or (min(1, len(loaded.blocks) - 1), len(loaded.blocks) - 1))
    about = {"model": config.model.name, "sigma": config.model.outliers.sigma, "sample_id": samples[sample].id}
    frame = pd.DataFrame(about, index=found.index).join(found)
    return write("activation_magnitude", frame, folder, slug(config.model.name))


if __name__ == "__main__":
    sys.exit(main())
