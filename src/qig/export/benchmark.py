"""Size and speed of exported checkpoints beside 16 bits, on this machine's processor.

``python -m qig.export.benchmark EXPORT ... --source CHECKPOINT``: bytes on disk and in memory, seconds of a prefill and
of a decoded token, each with its ratio to the 16-bit checkpoint. An export is measured as transformers loads it, and
with its integers in torchao's kernels where there is one that takes them (install torchao for it).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qig.commands import told
from qig.errors import ModelError
from qig.export.kernels import exported_scheme, kernel_of, use_kernels
from qig.store import write_json
from qig.store.files import write_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 when something cannot be loaded."""
    parser = argparse.ArgumentParser(prog="python -m qig.export.benchmark", description=__doc__)
    parser.add_argument("exports", type=Path, nargs="+", metavar="EXPORT", help="folder written by qig-export")
    parser.add_argument("--source", type=Path, required=True, help="the 16-bit checkpoint that they were made from")
    parser.add_argument(
        "--dtype", choices=["bfloat16", "float32"], default="bfloat16", help="computed in (%(default)s)"
    )
    parser.add_argument("--prompt", type=int, default=256, help="tokens of the prefill (%(default)s)")
    parser.add_argument("--tokens", type=int, default=16, help="decoded tokens (%(default)s)")
    parser.add_argument(
        "--repeats",
        type=int,
        default=5,
        help="the fastest of so many counts: others slow down, nothing speeds up (%(default)s)",
    )
    parser.add_argument("--to", type=Path, help="write benchmark.json and benchmark.md into this folder")
    options = parser.parse_args(arguments)
    if min(options.repeats, options.tokens) < 1:
        parser.error(f"--repeats {options.repeats}, --tokens {options.tokens}: expected 1 or more")
    return told("qig.export.benchmark", lambda: _write(options))


def _write(options: argparse.Namespace) -> None:
    if options.to is not None:
        options.to.mkdir(parents=True, exist_ok=True)
    report = benchmark(options)
    table = markdown(report)
    print(table)
    if options.to is not None:
        write_json(options.to / "benchmark.json", report)
        write_text(options.to / "benchmark.md", table)


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """Machine, shape of the measurement, and a row for each way to run the model; the first is 16 bits."""
    import torch

    from qig.environment import environment, quiet

    quiet()
    rows = [_measured("16 bit", options.source, options, lambda: _load(options.source, options))]
    for folder in options.exports:
        if not (folder / "qig_export.json").is_file():
            raise ModelError(f"{folder} is not what qig-export wrote: it has no qig_export.json")
        rows.append(_measured(f"{folder.name}, transformers", folder, options, lambda f=folder: _load(f, options)))
        kernel = kernel_of(exported_scheme(folder))
        if find_spec("torchao") is not None and kernel is not None:
            name = f"{folder.name}, torchao {kernel} kernel"
            rows.append(_measured(name, folder, options, lambda f=folder: _with_kernels(f, options)))
    found = environment(torch.device("cpu"))
    machine = {"cpu": found["cpu"], "packages": {name: found["packages"][name] for name in ("torch", "transformers")}}
    shape = {name: getattr(options, name) for name in ("dtype", "prompt", "tokens", "repeats")}
    return {"machine": machine, "measurement": shape, "rows": rows}


def markdown(report: dict[str, Any]) -> str:
    """The rows as a table: ratios to the first row, and its absolute values."""
    from tabulate import tabulate

    first, cpu, shape = report["rows"][0], report["machine"]["cpu"], report["measurement"]
    keys = ("disk_bytes", "memory_bytes", "prefill_seconds", "token_seconds")
    titles = ("on disk", "in memory", "prefill", "a token")
    units = (_megabytes, _megabytes, _milliseconds, _milliseconds)
    body = [
        [row["name"]]
        + [
            unit(row[key]) if row is first else f"{row[key] / first[key]:.2f}"
            for key, unit in zip(keys, units, strict=True)
        ]
        for row in report["rows"]
    ]
    table = tabulate(body, ["", *titles], tablefmt="pipe", colalign=["left"] + ["right"] * 4, disable_numparse=True)
    return (
        f"{table}\n\n16 bit in absolute terms, the others as ratios to it. {cpu['model']}, {cpu['threads']} of "
        f"{cpu['cores']} cores, torch {report['machine']['packages']['torch']}; {shape['dtype']}; prefill of "
        f"{shape['prompt']} tokens, then {shape['tokens']} tokens one by one; fastest of {shape['repeats']}.\n"
    )


def _measured(name: str, folder: Path, options: argparse.Namespace, load: Callable[[], Any]) -> dict[str, Any]:
    import torch

    model = load()
    vocabulary = model.config.get_text_config().vocab_size
    special = {getattr(model.config, key, None) for key in ("image_token_id", "video_token_id")}
    usable = torch.tensor([token for token in range(vocabulary) if token not in special])
    generator = torch.Generator().manual_seed(0)
    tokens = usable[torch.randint(len(usable), (1, options.prompt + options.tokens), generator=generator)]
    prefills, steps = [], []
    with torch.no_grad():
        for _ in range(options.repeats + 1):  # the first warms up, and unpacks what is unpacked at a first pass
            start = time.perf_counter()
            cache = model(input_ids=tokens[:, : options.prompt], use_cache=True, logits_to_keep=1).past_key_values
            prefills.append(time.perf_counter() - start)
            for place in range(options.prompt, options.prompt + options.tokens):
                start = time.perf_counter()
                cache = model(
                    input_ids=tokens[:, place : place + 1], past_key_values=cache, use_cache=True
                ).past_key_values
                steps.append(time.perf_counter() - start)
    return {
        "name": name,
        "disk_bytes": sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        "memory_bytes": _memory(model),
        "prefill_seconds": min(prefills[1:]),
        "token_seconds": min(steps[options.tokens :]),
    }


def _load(folder: Path, options: argparse.Namespace, **more: Any):
    import torch

    from qig.models.architectures import architecture_of
    from qig.models.checkpoint import model_type
    from qig.models.classes import FROM_FILES, model_class

    try:
        model = model_class(architecture_of(model_type(folder))).from_pretrained(
            folder, dtype=getattr(torch, options.dtype), use_safetensors=True, **FROM_FILES, **more
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{folder} cannot be loaded by transformers: {error}") from error
    return model.eval().requires_grad_(False)


def _with_kernels(folder: Path, options: argparse.Namespace):
    """The dense model that transformers unpacks, with the export's integers in the place of the unpacked weights."""
    from transformers import CompressedTensorsConfig

    model = _load(folder, options, quantization_config=CompressedTensorsConfig(dequantize=True))
    use_kernels(model, folder)
    return model


def _memory(model) -> int:
    """Bytes of all parameters and buffers, those inside of torchao's tensors counted as they are."""
    tensors = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    return sum(_bytes(tensor) for tensor in tensors.values())


def _bytes(tensor) -> int:
    if hasattr(tensor, "__tensor_flatten__"):
        return sum(_bytes(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return tensor.nbytes


def _megabytes(value: float) -> str:
    return f"{value / 1e6:.0f} MB"


def _milliseconds(value: float) -> str:
    return f"{1000 * value:.1f} ms"


if __name__ == "__main__":
    sys.exit(main())
