"""Where two runs first differ in a bit of what they computed; times and memory are not compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qig.report.records import Run

if TYPE_CHECKING:
    from torch import Tensor


def first_difference(one: Run, other: Run) -> str | None:
    """In words; ``None`` if there is none: tensors of the quantized stage, then samples, line by line."""
    if (one.quantized_folder is None) != (other.quantized_folder is None):
        return "only one of them quantizes anything"
    if one.quantized_folder is not None:
        found = _of_folders(one.quantized_folder, other.quantized_folder)
        if found is not None:
            return found
    if len(one.samples) != len(other.samples):
        return f"{len(one.samples)} samples and {len(other.samples)}"
    for before, now in zip(one.samples, other.samples, strict=True):
        for key in dict.fromkeys([*before, *now]):
            if repr(before.get(key)) != repr(now.get(key)):
                return f"sample {before.get('sample')}, {key}: {before.get(key)!r} and {now.get(key)!r}"
    return None


def _of_folders(one: Path, other: Path) -> str | None:
    names, others = ({str(file.relative_to(root)) for file in root.rglob("*.safetensors")} for root in (one, other))
    if names != others:
        return f"only one of them has {min(names ^ others)}"
    for name in sorted(names):
        found = _of_files(one / name, other / name)
        if found is not None:
            return f"{name}, {found}"
    return None


def _of_files(one: Path, other: Path) -> str | None:
    from safetensors.torch import load_file

    tensors, others = load_file(one), load_file(other)
    if tensors.keys() != others.keys():
        return f"only one of them has {min(tensors.keys() ^ others.keys())}"
    for name in sorted(tensors):
        found = _of_tensors(tensors[name], others[name])
        if found is not None:
            return f"{name}: {found}"
    return None


def _of_tensors(one: Tensor, other: Tensor) -> str | None:
    import torch

    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return f"{tuple(one.shape)} {one.dtype} and {tuple(other.shape)} {other.dtype}"
    if not one.numel():
        return None
    # Bytes, since NaN differs from itself and 0 equals -0.
    left, right = (side.flatten().contiguous().view(torch.uint8).view(side.numel(), -1) for side in (one, other))
    differ = (left != right).any(1)
    if not differ.any():
        return None
    place = int(differ.nonzero()[0])
    values = one.flatten()[place].item(), other.flatten()[place].item()
    return f"{int(differ.sum())} of {one.numel()} values differ, value {place} is {values[0]!r} and {values[1]!r}"
