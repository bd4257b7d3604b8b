"""Jobs by submitit: on SLURM as one array, or each in a process of its own on this machine.

The plugins wait for the first job that died and then give up the others; here every job is waited for, and one that
died is a failed job among the others.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.hydra_submitit_launcher import submitit_launcher as plugin
from omegaconf import OmegaConf

from qig.experiment.launchers.gpus import VISIBLE, take_gpu, visible_gpus

POLL = 0.2  # seconds between looks at the processes of this machine
PATIENCE = 60.0  # seconds for a process whose job is done to end
OF_EXECUTOR = ("max_num_timeout", "python")  # the others describe a job


class _Gathering(plugin.BaseSubmititLauncher):
    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        calls = [
            (list(overrides), "hydra.sweep.dir", number, f"job_id_for_{number}", Singleton.get_state())
            for number, overrides in enumerate(job_overrides, start=initial_job_idx)
        ]
        return [_result(job) for job in self._submit(self._executor(), calls)]

    def _executor(self) -> Any:
        import submitit

        common = OmegaConf.structured(plugin.BaseQueueConf).keys()
        named = {key if key in common else f"{self._EXECUTOR}_{key}": value for key, value in self.params.items()}
        own = {f"{self._EXECUTOR}_{key}" for key in OF_EXECUTOR}
        folder = named.pop("submitit_folder")
        created = {key: value for key, value in named.items() if key in own}
        executor = submitit.AutoExecutor(cluster=self._EXECUTOR, folder=folder, **created)
        executor.update_parameters(**{key: value for key, value in named.items() if key not in own})
        return executor

    def _submit(self, executor: Any, calls: list[tuple]) -> list[Any]:
        return executor.map_array(self, *zip(*calls, strict=True))


class SlurmLauncher(_Gathering):
    """One job array. A job that is out of time or preempted is requeued, and goes on at its last finished block."""

    _EXECUTOR = "slurm"

    def __call__(self, *arguments: Any) -> JobReturn:
        # SIGTERM is left to submitit, which works on until SLURM kills: scancel sends it, too.
        signal.signal(signal.SIGUSR1, signal.getsignal(signal.SIGUSR2))  # what submitit requeues at
        return super().__call__(*arguments)


class LocalLauncher(_Gathering):
    """Processes of this machine, ``parallelism`` of them at once (submitit itself starts all).

    submitit hides all GPUs from a job that asks for none, and gives every one that does the first: here each takes one
    that no other job of the sweep has, by itself, and at most as many run at once as there are.
    """

    _EXECUTOR = "local"

    def __init__(self, parallelism: int, **params: Any) -> None:
        super().__init__(**params)
        self.parallelism = parallelism
        self.gpus: tuple[str, ...] = ()

    def __call__(self, *arguments: Any) -> JobReturn:
        if self.gpus:
            folder = Path(str(self.config.hydra.sweep.dir)).absolute() / ".gpus"
            os.environ[VISIBLE] = take_gpu(self.gpus, folder, PATIENCE)[0]
        return super().__call__(*arguments)

    def _submit(self, executor: Any, calls: list[tuple]) -> list[Any]:
        jobs: list[Any] = []
        self.gpus = () if self.config.get("device") == "cpu" else visible_gpus()
        at_once = min(self.parallelism, len(self.gpus) or self.parallelism)
        for call in calls:
            while sum(not job.done() for job in jobs) >= at_once:
                time.sleep(POLL)
            job = executor.submit(self, *call)
            job._results_timeout_s = 1  # by default 15 s for the file of a process that has ended
            jobs.append(job)
        return jobs


def _result(job: Any) -> JobReturn:
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        return job.results()[0]
    except (FailedJobError, UncompletedJobError) as error:
        return JobReturn(status=JobStatus.FAILED, _return_value=error)
