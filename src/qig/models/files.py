"""The files of a checkpoint directory, read as what a stranger may have written: strictly, and none outside of it.

Weights come from safetensors files alone. Formats that hold pickles are never opened, and code that a checkpoint
brings along is never run. Nothing here imports torch or transformers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qig.errors import ModelError

ONE, INDEX = "model.safetensors", "model.safetensors.index.json"
NOT_READ = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack", ".npz", ".gguf", ".py")


def read_json(file: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        ModelError: the file is absent, cannot be read, is no JSON, or holds something else than an object.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file} cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{file} holds a {type(found).__name__}: expected an object")
    return found


def not_read(directory: Path) -> list[str]:
    """Names of the files whose formats are not read: pickled weights, other frameworks' weights, Python code."""
    return sorted(file.name for file in directory.iterdir() if file.suffix in NOT_READ)


def shards(directory: Path) -> list[Path]:
    """The safetensors files that transformers loads, sorted: one, or those of an index; without either, all there are.

    Repositories carry others beside them, such as the same weights once more under their first names.

    Raises:
        ModelError: an index that names a file elsewhere, or one that is absent.
    """
    indices = {file.name: _named(file) for file in sorted(directory.glob("*.safetensors.index.json"))}
    if (directory / ONE).is_file():
        return [directory / ONE]
    return indices[INDEX] if INDEX in indices else sorted(directory.glob("*.safetensors"))


def tensor_shapes(directory: Path) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor, from the headers of the safetensors files.

    Raises:
        ModelError: no safetensors files, a header that cannot be read, a file of another length than it says, or an
            index that names a file elsewhere.
    """
    from safetensors import SafetensorError, safe_open

    if not any(directory.glob("*.safetensors")):
        others = ", ".join(name for name in not_read(directory) if not name.endswith(".py"))
        found = f"; there are {others}" if others else ""
        raise ModelError(f"{directory} holds no *.safetensors files (other weight formats are not read){found}")
    shapes: dict[str, tuple[int, ...]] = {}
    for file in shards(directory):
        try:
            with safe_open(file, framework="np") as tensors:
                shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file} is not a complete safetensors file: {error}") from error
    return shapes


def _named(index: Path) -> list[Path]:
    """The files of an index; refused unless they are plain names of safetensors files of its directory."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict):
        raise ModelError(f"{index} holds no weight_map: expected an object of tensor names and file names")
    names = dict.fromkeys(map(str, places.values()))
    for name in names:
        if name in ("", ".", "..") or set(name) & {"/", "\\", "\0"} or not name.endswith(".safetensors"):
            raise ModelError(f"{index} names the file {name!r}: expected a *.safetensors file of the same folder")
        if not index.with_name(name).is_file():
            raise ModelError(f"{index} names the file {name!r}, which is not there")
    return [index.with_name(name) for name in sorted(names)]
