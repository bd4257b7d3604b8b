"""An exported folder against the run that it says it comes from: every tensor derived once more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from qig.errors import StoreError
from qig.export.tensors import Plan
from qig.export.write import write_companions
from qig.store import find_damage


def verify(plan: Plan, target: Path) -> int:
    """Compare, bit by bit, all tensors and companion files with what the run gives; returns the number of tensors.

    The checksums that were written at the export cover what a run does not determine, such as the model card.

    Raises:
        StoreError: anything differs, is missing, or is too much; names the first of it.
    """
    if not target.is_dir():
        raise StoreError(f"{target} is no directory: there is no export to verify")
    damage = find_damage(target)
    if damage is not None:
        raise StoreError(f"{target} is not as it was exported: {damage}")
    problem = next(_differences(plan, target), None)
    if problem is not None:
        raise StoreError(f"{target} is not the export of run {plan.source.run.id}: {problem}")
    return len(_places(target))


def _differences(plan: Plan, target: Path) -> Iterator[str]:
    places = _places(target)
    seen = set()
    for name, expected in plan.tensors():
        seen.add(name)
        if name not in places:
            yield f"{name} is missing"
        else:
            with safe_open(places[name], framework="pt") as file:
                if not _same_bits(file.get_tensor(name), expected):
                    yield f"{name} in {places[name].name} differs"
    yield from (f"{name} does not belong there" for name in sorted(places.keys() - seen))
    with TemporaryDirectory() as folder:
        write_companions(plan, Path(folder))
        for file in sorted(Path(folder).iterdir()):
            there = target / file.name
            if not there.is_file() or there.read_bytes() != file.read_bytes():
                yield f"{file.name} is missing or differs"


def _places(target: Path) -> dict[str, Path]:
    places = {}
    for path in sorted(target.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                places |= dict.fromkeys(file.keys(), path)
        except (SafetensorError, OSError) as error:
            raise StoreError(f"{path} is not a readable safetensors file: {error}") from error
    return places


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Equal as bytes: a NaN equals itself, and -0 is not 0."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(one.reshape(-1).view(torch.uint8), other.contiguous().reshape(-1).view(torch.uint8))
