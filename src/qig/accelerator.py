"""Whether torch could find an accelerator here at all, told without importing it: that alone takes seconds."""

from __future__ import annotations

import os
import runpy
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

NODES = ("nvidia*", "nvhost*", "nvmap", "nvgpu*", "dxg")
"""What CUDA needs of Linux in ``/dev``: a graphics card's driver, a Jetson's, or that of Windows' subsystem."""
OTHERS = ("hip", "rocm", "xpu")
"""Other accelerators that a build of torch may be for, as its ``version.py`` has them."""


def ruled_out(devices: Path = Path("/dev")) -> bool:
    """True where there can be none; False: ask torch.

    There can be none where torch is built for the processor or for CUDA alone, Linux has no device that CUDA could
    use, and no installed package brings torch a backend of its own.
    """
    if sys.platform != "linux" or entry_points(group="torch.backends"):
        return False
    built_for = _version()
    if any(built_for.get(name) for name in OTHERS):
        return False
    return built_for.get("cuda", "unknown") is None or not any(any(devices.glob(name)) for name in NODES)


def idle_card(devices: Path = Path("/dev")) -> str | None:
    """What to say of a graphics card that torch sees nothing of; None: there is none, or it was hidden from torch."""
    card = min(devices.glob("nvidia[0-9]*"), default=None)
    if card is None or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return None
    return f"{card} is there, but torch {_version()['__version__']} cannot use it"


def _version() -> dict:
    return runpy.run_path(str(Path(find_spec("torch").origin).with_name("version.py")))
