"""Where hidden states wait between uses: on the device, in host memory, or on disk (``memory.activations``)."""

from __future__ import annotations

import itertools
import logging
import shutil
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from qig.host_memory import free_bytes

log = logging.getLogger(__name__)

ROOM = 0.8  # of the free host memory for what is set aside: other things grow as well


class Kept(ABC):
    """A tensor that was put away."""

    @abstractmethod
    def get(self) -> Tensor:
        """The tensor on the device; bit for bit what was put away."""


class _OnHost(Kept):
    """Pinned memory moves fast and is taken by powers of two: for what is read often."""

    def __init__(self, tensor: Tensor, pinned: bool) -> None:
        self.device = tensor.device
        host = tensor.to("cpu")
        self.tensor = host.pin_memory() if pinned and self.device.type == "cuda" else host

    def get(self) -> Tensor:
        return self.tensor.to(self.device, non_blocking=True)


class _OnDisk(Kept):
    """The file goes when nobody can ask for it any more."""

    def __init__(self, tensor: Tensor, file: Path) -> None:
        self.device, self.file = str(tensor.device), file
        save_file({"x": tensor.contiguous()}, file)
        weakref.finalize(self, file.unlink, missing_ok=True)

    def get(self) -> Tensor:
        return load_file(self.file, device=self.device)["x"]


class Activations:
    """Puts tensors away in the configured place and brings them back to the device.

    Args:
        device: where the work is done.
        place: ``device`` (nothing moves), ``host`` or ``disk``.
        folder: for files; emptied first, since a killed process may have left some. Without one ``place`` is not
            ``disk``, and nothing set ``aside`` goes there.
        pinned: whether host memory is.
    """

    def __init__(
        self, device: torch.device, place: str = "device", folder: Path | None = None, pinned: bool = True
    ) -> None:
        self.device = device
        self.place = place
        self.folder = folder
        self.pinned = pinned
        self._numbers = itertools.count()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        if place == "disk":
            folder.mkdir(parents=True)

    def keep(self, tensor: Tensor) -> Tensor | Kept:
        """Put a tensor of the device away; what is returned goes to ``brought``."""
        if self.place == "disk":
            return _OnDisk(tensor, self.folder / f"{next(self._numbers)}.safetensors")
        if self.place == "host" and tensor.device.type != "cpu":
            return _OnHost(tensor, self.pinned)
        return tensor

    def aside(self, needed: int) -> Activations:
        """For ``needed`` bytes that wait through a whole pass to be read once: host memory, or files where short."""
        if self.place == "disk":
            return self
        if self.folder is None or fits(needed):
            return Activations(self.device, "host", pinned=False)
        log.warning("%.1f GiB wait on disk: host memory has no room for what enters all blocks", needed / 2**30)
        return Activations(self.device, "disk", self.folder / "aside")

    def shelf(self, tensors: Iterable[Tensor] = ()) -> Shelf:
        """A sequence of tensors that waits in this place."""
        return Shelf(self, tensors)

    def close(self) -> None:
        """Remove the folder for files."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def fits(needed: int) -> bool:
    """Whether so many bytes can be set aside in host memory."""
    return needed <= ROOM * free_bytes()


def brought(value: Tensor | Kept) -> Tensor:
    """The tensor itself, on the device."""
    return value.get() if isinstance(value, Kept) else value


class Shelf(Sequence[Tensor]):
    """Tensors that wait in one place; indexing brings one to the device."""

    def __init__(self, activations: Activations, tensors: Iterable[Tensor] = ()) -> None:
        self._activations = activations
        self._kept = [activations.keep(tensor) for tensor in tensors]

    def append(self, tensor: Tensor) -> None:
        self._kept.append(self._activations.keep(tensor))

    def __getitem__(self, index: int) -> Tensor:
        return brought(self._kept[index])

    def __len__(self) -> int:
        return len(self._kept)


class Mapped(Sequence[Tensor]):
    """``function(index)`` for each index below ``length``, made anew whenever it is asked for."""

    def __init__(self, function: Callable[[int], Tensor], length: int) -> None:
        self._function, self._length = function, length

    def __getitem__(self, index: int) -> Tensor:
        if not 0 <= index < self._length:
            raise IndexError(index)
        return self._function(index)

    def __len__(self) -> int:
        return self._length


def each_tensor(function: Callable[[Any], Any], value: Any) -> Any:
    """``value`` with every tensor in its nested tuples, lists and dicts replaced by ``function`` of it."""
    if isinstance(value, (Tensor, Kept)):
        return function(value)
    if isinstance(value, (tuple, list)):
        return type(value)(each_tensor(function, part) for part in value)
    if isinstance(value, dict):
        return {key: each_tensor(function, part) for key, part in value.items()}
    return value
