"""The Hydra callback that ends every command with its table, from files alone: jobs may run in other processes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from qig.report.jobs import COMPLETED, FAILED, STARTED, error_line, fingerprint, leave_state, read_jobs
from qig.store import disk_trouble

log = logging.getLogger(__name__)


class ClosingTable(Callback):
    """Notes in each job's folder how it went, and shows the comparison when the run or sweep has ended.

    ``figures``: at most so many token sensitivity figures. Nothing here raises: a report that fails is logged, and
    what Hydra does about a failed job stays as it is.
    """

    def __init__(self, figures: int = 1) -> None:
        self.figures = figures
        self._before: dict[Path, int] = {}

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._guarded(lambda: self._remember(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._guarded(lambda: self._remember(config.hydra.sweep.dir))

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._guarded(lambda: _note(config, STARTED))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        self._guarded(lambda: _note(config, *_outcome(job_return)))

    def on_run_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        # A single job that failed has nothing to tabulate, and Hydra shows its error.
        if job_return.status is JobStatus.COMPLETED and not config.get("plan"):
            self._guarded(lambda: self._close(config.hydra.run.dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        if not _plans(config.hydra.overrides.task):
            self._guarded(lambda: self._close(config.hydra.sweep.dir))

    def _remember(self, folder: str) -> None:
        self._before = fingerprint(Path(folder))

    def _close(self, folder: str) -> None:
        # Imported here: the processes of a launcher load this callback, and only the first one closes.
        from qig.report.closing import close

        jobs = read_jobs(Path(folder), self._before)
        if jobs:
            close(Path(folder), jobs, figures=self.figures)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:
            trouble = disk_trouble(error)
            if trouble is not None:
                log.warning("the job's state and table cannot be written: %s", trouble)
            else:
                log.exception("the closing table failed; the runs themselves are not affected")


def _note(config: DictConfig, status: str, error: str | None = None) -> None:
    """Write job.json into the job's output folder."""
    folder = Path(config.hydra.runtime.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    leave_state(folder, status, OmegaConf.to_container(config.hydra.overrides.task), error)


def _outcome(job_return: JobReturn) -> tuple[str, str | None]:
    if job_return.status is JobStatus.COMPLETED:
        return COMPLETED, None
    # The public property would raise the job's exception a second time, and print while doing so.
    return FAILED, error_line(job_return._return_value)


def _plans(words: Sequence[str]) -> bool:
    """Whether the jobs of a sweep only foresee: the last word on ``plan`` says so, in any of the ways of Hydra."""
    said = [word.partition("=")[2] for word in words if word.lstrip("+").partition("=")[0] == "plan"]
    return bool(said) and said[-1].lower() == "true"
