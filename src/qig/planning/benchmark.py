"""Calibration of blocks of a published size with random weights: seconds and memory, foreseen and measured."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from qig.config import conf_dir, register
from qig.config.schema import Config
from qig.config.validation import resolve
from qig.data.calibration import calibration_data
from qig.environment import environment, quiet
from qig.planning.plan import MEBI, Plan, foresee
from qig.planning.rehearsal import Rehearsal, rehearse, shortened
from qig.stages import device_name
from qig.store import write_json

SHAPES = {file.stem: file for file in sorted(Path(__file__).with_name("shapes").glob("*.yaml"))}
BASE = (
    "model=tiny_llava_onevision", "model.outliers.sigma=0", "tracking=none",
    "calibration=few_shot", "calibration@calibration.of=digitgrid", "calibration.shots=4",
)  # fmt: skip


def measure(shape: str, blocks: int, overrides: Sequence[str], device: torch.device) -> tuple[Config, Plan, Rehearsal]:
    """A prediction from a few micro-batches, then the whole calibration of ``blocks`` random blocks of a shape."""
    register()
    with initialize_config_dir(config_dir=str(conf_dir())):
        config = resolve(OmegaConf.to_object(compose("config", overrides=[*BASE, *overrides])))
    text = OmegaConf.to_object(OmegaConf.load(SHAPES[shape]))
    text["head_dim"] = text["hidden_size"] // text["num_attention_heads"]
    short = shortened(config.model, device, **text)
    batches = calibration_data(config.calibration, short.processor, short.model, short.image_token_ids).batches
    foreseen = foresee(short, batches, blocks, config, device)
    return config, foreseen, rehearse(shortened(config.model, device, blocks, **text), batches, config, device)


def markdown(shape: str, config: Config, foreseen: Plan, found: Rehearsal, machine: dict) -> str:
    """The result as a table."""
    device = found.device_bytes is not None

    def row(name: str, one: float, other: float, unit: str) -> str:
        return f"| {name} | {one:,.1f} {unit} | {other:,.1f} {unit} | {one / other - 1:+.0%} |"

    rows = [
        row("time", foreseen.seconds, found.seconds, "s"),
        row("peak host memory", foreseen.host_bytes / MEBI, found.host_bytes / MEBI, "MiB"),
    ]
    if device:
        rows.append(row("peak device memory", foreseen.device_bytes / MEBI, found.device_bytes / MEBI, "MiB"))
    where = machine["device"] if device else f"{machine['cpu']['model']}, {machine['cpu']['threads']} threads"
    return "\n".join(
        [
            f"# Calibration of {foreseen.blocks} blocks of {shape}\n",
            f"{config.method}, {config.quant.name}, {foreseen.samples} samples, {foreseen.tokens:,} tokens, "
            f"{config.model.dtype}, activations on {config.memory.activations}; random weights; {where}. "
            "Foreseen as `plan=true` does it, then measured in the same process. Made by "
            "`python -m qig.planning.benchmark`; versions and commit in the JSON beside this file.\n",
            "| | foreseen | measured | difference |\n|---|---|---|---|",
            *rows,
            "\n| stage | seconds a block |\n|---|---|",
            *(f"| {name} | {seconds:.2f} |" for name, seconds in found.stages.items()),
            "",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m qig.planning.benchmark", description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, required=True, help="whose sizes")
    parser.add_argument("--blocks", type=int, default=2, help="decoder blocks that are calibrated (default: 2)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: the first accelerator)")
    parser.add_argument("--to", type=Path, default=Path("results/benchmarks"), help="default: results/benchmarks")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the configuration, such as method=mbq")
    options = parser.parse_args(arguments)
    quiet()
    device = torch.device(device_name(options.device))
    config, foreseen, found = measure(options.shape, options.blocks, options.overrides, device)
    machine = environment(device)
    text = markdown(options.shape, config, foreseen, found, machine)
    options.to.mkdir(parents=True, exist_ok=True)
    name = f"calibration_{options.shape}_{config.quant.name}_{device.type}"
    (options.to / f"{name}.md").write_text(text)
    result = {"foreseen": asdict(foreseen), "measured": asdict(found), "config": asdict(config), **machine}
    write_json(options.to / f"{name}.json", json.loads(json.dumps(result, default=str)))
    print(text)


if __name__ == "__main__":
    main()
