"""``python -m qig.report.layer_error``: how far each construction's layers are from the 16-bit model's, in a table.

For every embedded model at W3A16, with and without synthetic outliers, on captions that no method has seen:

* ``linear``: mean over linears of ``|y_q - y|^2 / |y|^2`` of their outputs, biases included, where y_q is of what
  really reaches the linear in the quantized model and y of what does in the 16-bit one, summed over real tokens;
  without v_proj and up_proj, whose outputs equalization rescales on purpose;
* ``block``: the same at the outputs of the decoder blocks;
* ``end``: the same behind the last block.

Writes ``layer_error.csv``, ``layer_error.md`` and, beside them, ``layer_error.json`` with the command, the versions
and the commit.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from qig.blockwise.activations import Activations
from qig.blockwise.run import BlockPass
from qig.commands import told
from qig.config.composed import composed
from qig.config.schema import Config
from qig.config.validation import needs_calibration, resolve
from qig.data.calibration import CalibrationBatch, collate, samples_of
from qig.data.digitgrid.benchmark import calibration_samples
from qig.determinism import prepare
from qig.environment import environment, quiet
from qig.models.loading import LoadedModel, load
from qig.quantization.setting import Setting
from qig.store import write_json
from qig.store.files import write_text

CPU = torch.device("cpu")
MODELS = ("tiny_qwen2_vl", "tiny_llava_onevision", "tiny_internvl")
SIGMAS = (None, 0.0)
"""None: the default of the configuration."""
CONSTRUCTIONS = {
    "RTN": ("method=rtn",),
    "GPTQ": ("method=gptq",),
    "GPTAQ": ("method=gptaq",),
    "CWE": ("method=awq",),
    "CWE + GPTQ": ("method=awq", "rounding=gptq"),
    "learned": ("method=awq", "equalization=learned"),
    "learned + GPTQ": ("method=awq", "equalization=learned", "rounding=gptq"),
}
HELD_OUT_SEED = 10_007
Place = tuple[str, str]
Outputs = dict[Place, list[Tensor]]


def table(models: Sequence[str], sigmas: Sequence[float | None], samples: int, held_out: int) -> pd.DataFrame:
    """One row per model, outliers and construction: ``linear``, ``block`` and ``end`` error."""
    quiet()
    rows = []
    progress = tqdm(total=len(models) * len(sigmas) * len(CONSTRUCTIONS), unit="construction")
    for model in models:
        for sigma in sigmas:
            exact = None
            for name, overrides in CONSTRUCTIONS.items():
                progress.set_description(f"{model} {name}")
                config = _config(model, sigma, samples, overrides)
                loaded = load(config.model, CPU)
                batches = _collated(loaded, calibration_samples(held_out, HELD_OUT_SEED), config)
                if exact is None:
                    exact = outputs(loaded, batches, config)
                with tempfile.TemporaryDirectory() as folder:
                    calibration = _collated(loaded, samples_of(config.calibration), config)
                    used = calibration if needs_calibration(config) else []
                    BlockPass(loaded, used, config, Activations(CPU), Path(folder)).run()
                errors = relative_errors(exact, outputs(loaded, batches, config), batches)
                rows.append({"model": model, "sigma": config.model.outliers.sigma, "construction": name, **errors})
                progress.update()
    progress.close()
    return pd.DataFrame(rows)


def _config(model: str, sigma: float | None, samples: int, overrides: Sequence[str]) -> Config:
    outliers = [] if sigma is None else [f"model.outliers.sigma={sigma}"]
    words = [f"model={model}", "quant=w3a16", *overrides, "tracking=none", *outliers]
    return resolve(composed([*words, f"calibration.samples={samples}"]))


def _collated(loaded: LoadedModel, samples: list, config: Config) -> list[CalibrationBatch]:
    budget = config.calibration.tokens_per_batch
    return collate(samples, loaded.processor, loaded.model, loaded.image_token_ids, budget)


@torch.no_grad()
def outputs(loaded: LoadedModel, batches: list[CalibrationBatch], config: Config) -> Outputs:
    """``("linear", name)`` and ``("block", index)`` to the outputs ``[batch, tokens, channels]`` per micro-batch."""
    pattern = Setting.of(config.quant).linears
    rescaled = {site.producer for site in loaded.architecture.sites}
    watched: dict[Place, nn.Module] = {}
    for index, block in enumerate(loaded.blocks):
        watched["block", str(index)] = block
        for name, module in block.named_modules():
            if pattern.fullmatch(name) and name not in rescaled:
                watched["linear", f"{index}.{name}"] = module
    found: Outputs = {key: [] for key in watched}
    with _hooked(watched, found):
        for batch in batches:
            loaded.model(**batch.inputs, use_cache=False, logits_to_keep=1)
    return found


@contextmanager
def _hooked(watched: dict[Place, nn.Module], found: Outputs) -> Iterator[None]:
    def keep(key: Place):
        return lambda _module, _args, output: found[key].append(output[0] if isinstance(output, tuple) else output)

    handles = [module.register_forward_hook(keep(key)) for key, module in watched.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def relative_errors(exact: Outputs, found: Outputs, batches: list[CalibrationBatch]) -> dict[str, float]:
    """Mean relative squared error of the linears, of the blocks, and of the last block (``end``)."""
    errors: dict[str, list[float]] = {"linear": [], "block": []}
    for key, reference in exact.items():
        lost = size = 0.0
        for y, y_q, batch in zip(reference, found[key], batches, strict=True):
            lost += float((y_q - y)[batch.real].double().square().sum())
            size += float(y[batch.real].double().square().sum())
        errors[key[0]].append(lost / size)
    return {**{level: sum(values) / len(values) for level, values in errors.items()}, "end": errors["block"][-1]}


def markdown(rows: pd.DataFrame, samples: int, held_out: int) -> str:
    """The table with, per model and outliers, RTN's error and the others' as shares of it."""
    parts = [
        "# Layer error at W3A16\n",
        f"Mean relative squared output error on {held_out} held-out captions, calibrated on {samples} others. "
        "`linear`: linears; `block`: decoder blocks; `end`: behind the last block. In brackets: relative to RTN. "
        "sigma: synthetic, function-preserving outlier channels (0: none). Made by `python -m qig.report.layer_error`; "
        "command, versions and commit in `layer_error.json`.\n",
    ]
    for (model, sigma), part in rows.groupby(["model", "sigma"], sort=False):
        baseline = part[part.construction == "RTN"].iloc[0]
        parts.append(f"## {model}, sigma {sigma:g}\n")
        lines = ["| construction | linear | block | end |", "|---|---|---|---|"]
        for _, row in part.iterrows():
            cells = [f"{row[level]:.4g} ({row[level] / baseline[level]:.2f})" for level in ("linear", "block", "end")]
            lines.append(f"| {row.construction} | " + " | ".join(cells) + " |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 after a message about what cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m qig.report.layer_error", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder (default: results)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--sigmas", nargs="+", type=float, default=SIGMAS, help="default: the configuration's, and 0")
    parser.add_argument("--samples", type=int, default=32, help="captions to calibrate on (default: 32)")
    parser.add_argument("--held-out", type=int, default=32, help="captions to measure on (default: 32)")
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(given)
    command = shlex.join(["python", "-m", "qig.report.layer_error", *given])
    return told("qig.report.layer_error", lambda: _write(options, command))


def _write(options: argparse.Namespace, command: str) -> None:
    folder = options.output
    folder.mkdir(parents=True, exist_ok=True)
    prepare(seed=0, threads=1)  # the same bits whatever the number of cores
    rows = table(options.models, options.sigmas, options.samples, options.held_out)
    text = markdown(rows, options.samples, options.held_out)
    write_text(folder / "layer_error.csv", rows.to_csv(index=False))
    write_text(folder / "layer_error.md", text)
    write_json(folder / "layer_error.json", {"command": command, **environment(CPU)})
    print(text)


if __name__ == "__main__":
    sys.exit(main())
