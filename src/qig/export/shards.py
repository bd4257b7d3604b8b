"""Sharded safetensors files, written as the tensors come."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from qig.models.files import INDEX, ONE


class Shards:
    """Writes ``model.safetensors``, or ``model-N-of-M.safetensors`` and an index if it takes more than one file.

    Holds the tensors of one file, at most ``limit`` bytes unless a single tensor is larger.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._tensors: dict[str, Tensor] = {}
        self._bytes = 0
        self._written: list[list[str]] = []
        self._total = 0

    def add(self, name: str, tensor: Tensor) -> None:
        if self._tensors and self._bytes + tensor.nbytes > self.limit:
            self._flush()
        self._tensors[name] = tensor.contiguous()
        self._bytes += tensor.nbytes

    def close(self) -> None:
        """Write the last file, give all their names, and write the index."""
        self._flush()
        count = len(self._written)
        if count == 1:
            self._shard(0).rename(self.folder / ONE)
            return
        places = {}
        for number, names in enumerate(self._written):
            file = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
            self._shard(number).rename(self.folder / file)
            places |= dict.fromkeys(names, file)
        index = {"metadata": {"total_size": self._total}, "weight_map": dict(sorted(places.items()))}
        (self.folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")

    def _flush(self) -> None:
        save_file(self._tensors, self._shard(len(self._written)), metadata={"format": "pt"})
        self._written.append(list(self._tensors))
        self._total += self._bytes
        self._tensors, self._bytes = {}, 0

    def _shard(self, number: int) -> Path:
        return self.folder / f"shard-{number}.safetensors"
