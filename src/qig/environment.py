"""What a run record says about where it was computed."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from qig.repository import Repository, repository

PACKAGES = (
    "qig", "torch", "torchvision", "transformers", "accelerate", "safetensors", "lmms-eval", "datasets",
    "hydra-core", "omegaconf", "numpy", "scipy", "pandas", "scikit-learn", "pillow", "wandb",
)  # fmt: skip

VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "PYTHONHASHSEED",
    "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "NVIDIA_TF32_OVERRIDE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE",
    "TRANSFORMERS_OFFLINE", "WANDB_MODE", "SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID",
)  # fmt: skip
"""Environment variables that a record may show: what computes, never a name of a user, a path or a secret."""


def quiet() -> None:
    """Keep transformers and accelerate from talking while a checkpoint is opened."""
    import logging

    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("accelerate.big_modeling").setLevel(logging.ERROR)


def environment(device: torch.device, clone: Repository | None = None) -> dict[str, Any]:
    """Python, platform, processor or accelerator, threads, packages, chosen variables, state of the repository.

    ``clone``: that state where the caller knows it already.
    """
    clone = clone or repository()
    return {
        "python": sys.version.split()[0],
        "platform": " ".join((platform.system(), platform.machine(), *platform.libc_ver())).strip(),
        "cpu": {"model": _cpu(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cuda": _cuda() if device.type == "cuda" else None,
        "packages": {name: _version(name) for name in PACKAGES},
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "git": None if clone is None else clone.record(),
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


def _cuda() -> dict[str, Any]:
    return {"torch": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
