"""Jobs in parallel processes of one machine, each with a GPU of its own where there are GPUs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.types import TaskFunction
from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher as Plugin
from omegaconf import DictConfig

from qig.experiment.launchers.gpus import VISIBLE, take_gpu, visible_gpus


class JoblibLauncher(Plugin):
    """Hydra's joblib launcher; with GPUs it starts at most as many jobs at once as there are."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        gpus = () if self.config.get("device") == "cpu" else visible_gpus()
        if gpus:
            asked = int(self.joblib["n_jobs"])
            self.joblib["n_jobs"] = len(gpus) if asked < 1 else min(asked, len(gpus))
            if not isinstance(self.task_function, OnOwnGpu):
                folder = Path(self.config.hydra.sweep.dir).absolute() / ".gpus"
                self.task_function = OnOwnGpu(self.task_function, gpus, folder)
        return super().launch(job_overrides, initial_job_idx)


class OnOwnGpu:
    """A task function that sees one GPU: the one that its worker process took when it ran its first job."""

    def __init__(self, task: TaskFunction, gpus: tuple[str, ...], folder: Path) -> None:
        self.task, self.gpus, self.folder = task, gpus, folder

    def __call__(self, config: DictConfig) -> Any:
        os.environ[VISIBLE] = take_gpu(self.gpus, self.folder)[0]
        return self.task(config)
