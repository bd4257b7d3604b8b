"""Reading single tensors of a sharded checkpoint, and writing another one shard by shard."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from qig.errors import ModelError
from qig.models.files import INDEX
from qig.models.internvl2.tensors import Source

SHARD_BYTES = 2**30  # the bound on host memory, beside one published tensor


class Reader:
    """Tensors of all ``*.safetensors`` files of a directory by name; nothing is read before it is asked for.

    Raises:
        ModelError: a file that cannot be opened, or a tensor that two files hold.
    """

    def __init__(self, directory: Path):
        self._files = {}
        for path in sorted(directory.glob("*.safetensors")):
            try:
                file = safe_open(path, framework="pt")
            except (OSError, SafetensorError) as error:
                raise ModelError(f"{path} cannot be read: {error}") from error
            for name in file.keys():  # noqa: SIM118 - no mapping
                if name in self._files:
                    raise ModelError(f"{path} holds {name} once more")
                self._files[name] = file

    def names(self) -> list[str]:
        return list(self._files)

    def read(self, name: str) -> Tensor:
        return self._files[name].get_tensor(name)

    def outline(self, name: str) -> Tensor:
        """The tensor on the meta device: shape and dtype from the header, no values."""
        part = self._files[name].get_slice(name)
        return torch.empty(part.get_shape(), dtype=part[:0].dtype, device="meta")


def write(reader: Reader, sources: dict[str, Source], outlines: dict[str, Tensor], folder: Path) -> None:
    """Write every native tensor, at most ``SHARD_BYTES`` (or one tensor) in memory at a time, and the index.

    Args:
        outlines: the native tensors on the meta device; they decide which shard a tensor goes to.
    """
    split = split_torch_state_dict_into_shards(outlines, max_shard_size=SHARD_BYTES)
    with tqdm(total=len(sources), desc="InternVL2 to native", unit="tensor", leave=False) as progress:
        for filename, names in split.filename_to_tensors.items():
            shard = {}
            for name in names:
                shard[name] = sources[name].part_of(reader.read(sources[name].name))
                progress.update()
            save_file(shard, folder / filename, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
