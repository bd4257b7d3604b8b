"""The quantized block on disk: integers, scales, zero points, and every other parameter of the block.

``blocks/NNN/weights.safetensors``, ``findings.safetensors`` (token weights, scales) and ``block.json``, with checksums
of all three: a block without them is not finished.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from qig.errors import StoreError
from qig.quantization.grid import QuantizedWeight
from qig.quantization.linear import QuantizedLinear, replace
from qig.quantization.setting import Setting
from qig.store import find_damage, part, write_json

PARTS = ("integers", "scale", "zero_point")


def block_folder(root: Path, index: int) -> Path:
    return root / "blocks" / f"{index:03d}"


def save_block(folder: Path, block: nn.Module, findings: dict[str, Tensor], record: dict[str, Any]) -> None:
    """Write a finished block; it is there with its checksums, or not there."""
    with part(folder) as temporary:
        save_file(_tensors(block), temporary / "weights.safetensors")
        save_file(findings, temporary / "findings.safetensors")
        write_json(temporary / "block.json", record)


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a finished block; ``None`` if it is not there or a file does not match its checksum."""
    return None if find_damage(folder) else json.loads((folder / "block.json").read_text())


def apply_block(folder: Path, block: nn.Module, setting: Setting) -> None:
    """Turn ``block`` in place into the quantized block of the folder; the integers stay on disk.

    Raises:
        StoreError: the tensors are not those of this block.
    """
    tensors = load_file(folder / "weights.safetensors")
    linears = setting.selected(block)
    others = {name: value for name, value in block.state_dict().items() if _owner(name) not in linears}
    expected = set(others) | {f"{name}.{part}" for name in linears for part in PARTS[:2]}
    missing = expected - set(tensors)
    if missing:
        raise StoreError(f"{folder} lacks {', '.join(sorted(missing)[:3])} of the block's tensors")
    for name, linear in linears.items():
        values = [tensors.get(f"{name}.{part}") for part in PARTS]
        device, dtype = linear.weight.device, linear.weight.dtype
        quantized = QuantizedWeight(*(None if value is None else value.to(device) for value in values))
        bias = tensors.get(f"{name}.bias")
        replace(block, name, setting.derived(quantized, None if bias is None else bias.to(device), dtype))
    with torch.no_grad():
        for name, value in others.items():
            value.copy_(tensors[name])


def _tensors(block: nn.Module) -> dict[str, Tensor]:
    tensors = {}
    for name, module in block.named_modules():
        if isinstance(module, QuantizedLinear):
            parts = {
                **dict(zip(PARTS, (module.integers, module.scale, module.zero_point), strict=True)),
                "bias": module.bias,
            }
            tensors |= {f"{name}.{part}": value for part, value in parts.items() if value is not None}
    quantized = {_owner(name) for name in tensors}
    tensors |= {name: value for name, value in block.state_dict().items() if _owner(name) not in quantized}
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _owner(name: str) -> str:
    return name.rpartition(".")[0]
