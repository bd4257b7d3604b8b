"""Whole-model gradients as an artefact: an interrupted pass goes on behind its last block, and runs share the result.

    forward/seconds.json              of the pass forward
    blocks/NNN/gradients.safetensors  ``I.NAME``: ``mean_c |dL/dy|`` of micro-batch I, module NAME, ``[batch, tokens]``
    running/NNN/running.safetensors   ``I``: dL/d(input of block NNN), while the pass backward is under way
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from qig.blockwise.artefact import block_folder
from qig.store import find_damage, part, write_json

Gradients = dict[str, list[Tensor]]
"""Of one block, by the module's name: one ``[batch, tokens]`` float32 per micro-batch."""
RECORD = "gradients.json"


class KeptGradients:
    """The blocks of one pass backward in a folder, from the last to the first."""

    def __init__(self, folder: Path, blocks: int) -> None:
        self.folder, self.blocks = folder, blocks

    def remaining(self) -> int:
        """So many first blocks are not done yet; those behind them are whole, and so is what runs on backward."""
        first = self.blocks
        while first and find_damage(block_folder(self.folder, first - 1)) is None:
            first -= 1
        whole = first in (0, self.blocks) or find_damage(self._running(first)) is None
        return first if whole else self.blocks

    def running(self, index: int) -> list[Tensor]:
        """dL/d(input of block ``index``) per micro-batch, on the processor."""
        kept = load_file(self._running(index) / "running.safetensors")
        return [kept[str(i)] for i in range(len(kept))]

    def note_forward(self, seconds: float) -> None:
        """What the pass forward took; an attempt that goes on runs only part of it, and does not count."""
        if find_damage(self.folder / "forward"):
            with part(self.folder / "forward") as folder:
                write_json(folder / "seconds.json", seconds)

    def add(self, index: int, gradients: Gradients, running: Sequence[Tensor], seconds: float) -> None:
        """Block ``index`` is done. What runs on is written first, so that no finished block lacks it."""
        with part(self._running(index)) as folder:
            save_file({str(i): x.cpu().contiguous() for i, x in enumerate(running)}, folder / "running.safetensors")
        with part(block_folder(self.folder, index)) as folder:
            tensors = {f"{i}.{name}": x.cpu() for name, found in gradients.items() for i, x in enumerate(found)}
            save_file(tensors, folder / "gradients.safetensors")
            write_json(folder / "seconds.json", seconds)
        shutil.rmtree(self._running(index + 1), ignore_errors=True)

    def close(self, memory: dict[str, int | None]) -> None:
        """All blocks are done: the record, and nothing else but the gradients stays. ``memory``: peaks so far."""
        parts = [self.folder / "forward", *(block_folder(self.folder, index) for index in range(self.blocks))]
        seconds = sum(json.loads((done / "seconds.json").read_text()) for done in parts)
        write_json(self.folder / RECORD, {"seconds": seconds, "memory": memory})
        shutil.rmtree(self.folder / "running", ignore_errors=True)

    def read(self, names: Sequence[str]) -> list[Gradients]:
        """By block, from the first to the last."""
        found = []
        for index in range(self.blocks):
            tensors = load_file(block_folder(self.folder, index) / "gradients.safetensors")
            batches = range(len(tensors) // len(names))
            found.append({name: [tensors[f"{i}.{name}"] for i in batches] for name in names})
        return found

    def _running(self, index: int) -> Path:
        return self.folder / "running" / f"{index:03d}"
