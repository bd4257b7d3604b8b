"""What a run record says about where it was computed."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

CODE = ("src", "conf", "experiments", "pyproject.toml", "requirements.lock")
"""What decides a result; a changed README does not make a run another one."""
PACKAGES = (
    "qig", "torch", "torchvision", "transformers", "accelerate", "safetensors", "lmms-eval", "datasets",
    "hydra-core", "omegaconf", "numpy", "scipy", "pandas", "scikit-learn", "pillow", "wandb",
)  # fmt: skip


def quiet() -> None:
    """Keep transformers and accelerate from talking while a checkpoint is opened."""
    import logging

    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("accelerate.big_modeling").setLevel(logging.ERROR)


def environment(device: torch.device) -> dict[str, Any]:
    """Python, platform, processor or accelerator, threads, versions of packages, and the state of the repository."""
    return {
        "python": sys.version.split()[0],
        "platform": " ".join((platform.system(), platform.machine(), *platform.libc_ver())).strip(),
        "cpu": {"model": _cpu(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "packages": {name: _version(name) for name in PACKAGES},
        "git": _git(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """Commit of the clone that the package runs from, and whether its code has changes; ``None`` outside a clone."""
    here = Path(__file__).resolve().parents[2]

    def ask(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", here, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        ask("ls-files", "--error-unmatch", str(Path(__file__)))
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "--", *CODE))}
    except (OSError, subprocess.CalledProcessError):
        return None
