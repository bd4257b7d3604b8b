"""Whether the data of a task can be had, told before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qig.errors import DataError

from . import index

QUESTIONS = {
    "vizwiz_vqa_val": 4319,
    "mmmu_val": 900,
    "chartqa": 2500,
    "ai2d": 3088,
    "scienceqa_img": 2017,
    "ocrbench": 1000,
    "textvqa_val": 5000,
}
"""Size of a benchmark, where it is published; the download is larger where a repository holds other splits too."""

_FILE_FORMATS = ("csv", "json", "parquet", "text", "pandas", "arrow", "imagefolder")


def check_datasets(tasks: Sequence[str], beside: str | None = None) -> None:
    """Refuse a task whose data is neither in the caches nor may be fetched.

    Says nothing of data that a network may still bring.

    Raises:
        DataError: names the task, its dataset, where it was looked for, and the command that fetches it.
    """
    for task, config in (item for name in tasks for item in index.tasks_of(name, beside).items()):
        dataset = config.get("dataset_path")
        if not isinstance(dataset, str) or dataset in _FILE_FORMATS:
            continue
        if (config.get("dataset_kwargs") or {}).get("load_from_disk"):
            if not Path(dataset).exists():
                raise DataError(f"task {task!r} reads its data from {dataset}, which does not exist")
        elif not Path(dataset).exists() and _offline() and not _cached(dataset):
            raise DataError(missing(task, dataset, f"{_offline()} forbids fetching it"))


def missing(task: str, dataset: str, why: str) -> str:
    """What to say where a dataset cannot be had."""
    from huggingface_hub import constants

    size = f", {QUESTIONS[task]:,} questions" if task in QUESTIONS else ""
    return (
        f"task {task!r} needs the dataset {dataset}{size}, which is not in the Hugging Face cache "
        f"({constants.HF_HOME}), and {why}. Where there is a network: hf download --repo-type dataset {dataset} "
        "(first with --dry-run to see its size); HF_HOME names the cache, which can be copied"
    )


def dataset_of(task: str, beside: str | None = None) -> str | None:
    """The hub's name of a task's dataset, or of a group's first member's, where lmms-eval's files say it."""
    named = (config.get("dataset_path") for config in index.tasks_of(task, beside).values())
    return next((dataset for dataset in named if dataset), None)


def _offline() -> str:
    """The setting that forbids the network, or nothing."""
    import os

    from huggingface_hub.constants import HF_HUB_OFFLINE

    # A setting of the process may have changed since the library read it.
    for name in ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE"):
        if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
            return f"{name}={os.environ[name]}"
    return "HF_HUB_OFFLINE" if HF_HUB_OFFLINE else ""


def _cached(dataset: str) -> bool:
    from datasets.config import HF_DATASETS_CACHE
    from datasets.naming import camelcase_to_snakecase
    from huggingface_hub.constants import HF_HUB_CACHE

    owner, _, name = dataset.rpartition("/")
    prepared = "___".join(filter(None, (owner, camelcase_to_snakecase(name))))
    downloaded = Path(HF_HUB_CACHE, "datasets--" + dataset.replace("/", "--"), "snapshots")
    folders = (Path(HF_DATASETS_CACHE, prepared), downloaded)
    return any(folder.is_dir() and any(folder.iterdir()) for folder in folders)
