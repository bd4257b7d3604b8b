"""The exported folder: complete under its name, or not there at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from safetensors import SafetensorError

from qig.errors import ModelError, StoreError
from qig.export.card import model_card
from qig.export.scheme import quantization_config
from qig.export.shards import INDEX, Shards
from qig.export.tensors import Plan
from qig.models.checkpoint import CONTENT
from qig.models.files import read_json
from qig.store import write_json, write_manifest

CARD = "README.md"
RECORD = "qig_export.json"


def write(plan: Plan, target: Path, shard_bytes: int) -> None:
    """Export to ``target``, which must not exist yet, or be empty; no file larger than ``shard_bytes`` if possible.

    Raises:
        StoreError: something is there, or the disk is full or not writable.
    """
    with _whole(target) as folder:
        shards = Shards(folder, shard_bytes)
        for name, tensor in plan.tensors():
            shards.add(name, tensor)
        shards.close()
        write_companions(plan, folder)
        for file in folder.glob("*.safetensors"):  # safetensors makes them private
            shutil.copymode(folder / "config.json", file)
        write_json(folder / RECORD, _record(plan))
        card = model_card(plan.source, folder, target.name, plan.scheme.weights.num_bits)
        (folder / CARD).write_text(card, encoding="utf-8")
        write_manifest(folder)


def check_free(target: Path) -> None:
    """Raises StoreError unless ``target`` is not there, or an empty directory."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise StoreError(f"{target} is there and not empty; choose another directory for --to, or remove it")


def is_widened(target: Path) -> bool:
    """Whether the folder says of itself that it was widened; what it lacks for an export, ``verify`` says."""
    try:
        bits = read_json(target / RECORD).get("bits")
    except ModelError:
        return False
    return isinstance(bits, dict) and bits.get("integers") != bits.get("container")


def write_companions(plan: Plan, folder: Path) -> None:
    """All that a checkpoint has besides its weights: processor, tokenizer, generation, licence, ``config.json``.

    ``dequantize`` tells transformers to unpack weights while it loads them, as it otherwise does at the first forward
    pass. That keeps scales in float32 until the product is taken, so that weights are bit by bit those evaluated in
    any data type; and compressed-tensors up to 0.20 cannot load packed zero points in another way. It would drop the
    quantization of activations. ``integer_bits`` says what the integers use where ``num_bits`` is wider.
    """
    from compressed_tensors.compressors import ModelCompressor

    for file in _companions(plan.source.checkpoint):
        shutil.copyfile(file, folder / file.name)
    config = _with_dtype(json.loads((plan.source.checkpoint / "config.json").read_text()), plan.source.model["dtype"])
    write_json(folder / "config.json", config)
    ModelCompressor(quantization_config(plan.scheme, plan.ignore)).update_config(str(folder))
    more = {}
    if plan.scheme.input_activations is None:
        more["dequantize"] = True
    if plan.widened:
        more["integer_bits"] = plan.integer_bits
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] |= more
    write_json(folder / "config.json", config)


def _companions(checkpoint: Path) -> Iterator[Path]:
    for file in sorted(checkpoint.iterdir()):
        wanted = file.suffix in CONTENT or file.name.startswith(("LICENSE", "NOTICE"))
        if file.is_file() and wanted and file.suffix != ".safetensors" and file.name not in ("config.json", INDEX):
            yield file


def _with_dtype(config: dict, dtype: str) -> dict:
    """The configuration with the data type that the run computed in, in all of its parts that name one."""
    changed = {key: _with_dtype(value, dtype) if isinstance(value, dict) else value for key, value in config.items()}
    named = {key: dtype for key in ("dtype", "torch_dtype") if key in config}
    if "model_type" in config and "architectures" in config and not named:
        named = {"dtype": dtype}
    return changed | named


def _record(plan: Plan) -> dict:
    """Where the export comes from, for whoever finds the folder."""
    record = plan.source.run.record
    return {
        "run": plan.source.run.id,
        "quantized": record["stages"]["quantized"],
        "checkpoint": dict(record["checkpoint"]),
        "format": plan.scheme.format,
        "bits": {"integers": plan.integer_bits, "container": plan.scheme.weights.num_bits},
        "written_by": {name: version(name) for name in ("qig", "compressed-tensors", "safetensors")},
    }


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` that takes its name at the end, and is gone if anything goes wrong."""
    check_free(target)
    folder = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        yield folder
        folder.rename(target)
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{target} could not be written: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
