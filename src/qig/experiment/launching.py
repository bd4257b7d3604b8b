"""The jobs of a sweep: what the store has already is not launched, and a job that dies does not take others with it.

How a job ended is read from the two files in its folder (``qig.report.jobs``), which the processes of every launcher
write; the sweep's folder and the store must be where all of them can reach them.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, open_dict

from qig.config.composed import typed_job
from qig.config.identity import evaluation_key, model_identity, quantized_key, run_key
from qig.config.schema import Config
from qig.errors import JobsFailed, QigError
from qig.experiment.jobs import Job
from qig.experiment.launchers import ENVIRONMENT
from qig.report.jobs import (
    COMPLETED,
    FAILED,
    RUN_FILE,
    STARTED,
    STATE_FILE,
    error_line,
    leave_run,
    leave_state,
    read_job,
    status,
)
from qig.report.tables.placing import Foreseen
from qig.store import find_damage

log = logging.getLogger(__name__)
ELSEWHERE = "left no word in {}: the sweep's folder must be on a file system that the workers share"


@dataclass(frozen=True)
class SweepJob:
    """One job: its words, and the folder that it writes into. ``plans``: it foresees costs and leaves no run."""

    overrides: tuple[str, ...]
    sweep: Path
    name: str
    plans: bool = False

    @property
    def folder(self) -> Path:
        return self.sweep / self.name

    @property
    def status(self) -> str | None:
        """COMPLETED, FAILED, STARTED (still at it, or dead), or None: has not begun."""
        return status(self.folder)

    def fail(self, error: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        leave_state(self.folder, FAILED, filter_overrides(self.overrides), error)

    def forget(self) -> None:
        """Remove what an earlier start left, so that it is not taken for this one's."""
        for name in (STATE_FILE, RUN_FILE):
            (self.folder / name).unlink(missing_ok=True)


def outcome_in_store(composed: DictConfig) -> dict[str, Any] | None:
    """What a finished job leaves behind, if its run and those it is compared with are in the store, verified."""
    from qig.runner import Prepared

    try:
        config = typed_job(composed)
        prepared = Prepared(config)
        return None if config.plan or not prepared.cached else prepared.run().left()
    except QigError:
        return None  # the job itself will say so, in its place


def track_stored(job: SweepJob, composed: DictConfig) -> None:
    """Log the run of a job that was not launched, as the job itself would have."""
    from qig.runner import Outcome, checked
    from qig.tracked import log_stored

    left = read_job(job.folder)
    if left.run is not None and composed.tracking.kind != "none":
        config, _ = checked(typed_job(composed))
        log_stored(config, Outcome(left.run, True, left.baselines, left.store), composed.hydra)


def foresee(job: Job, config: Config) -> Foreseen:
    """The job of a resolved configuration as its table will place it.

    Two are called the same where they are one run, as far as that is known without the contents of checkpoint and data.
    """
    model = model_identity(config, config.model.path, config.device)
    quantized = quantized_key(config, model, None)
    return Foreseen.of(job, config, run_key(config, quantized, evaluation_key(config, model, quantized)))


def place(composed: DictConfig, number: int, overrides: Sequence[str]) -> SweepJob:
    """The job as its launcher would place it, as number ``number`` of the sweep."""
    with open_dict(composed):
        composed.hydra.job.num = number
        composed.hydra.job.id = str(number)
    return SweepJob(tuple(overrides), Path(composed.hydra.sweep.dir).absolute(), str(composed.hydra.sweep.subdir),
                    plans=bool(composed.get("plan")))


def note_if_in_store(job: SweepJob, composed: DictConfig, find: Callable[[DictConfig], dict[str, Any] | None]) -> bool:
    """Leave in the job's folder what its run would leave there, if the store has it; whether it has."""
    found = find(composed)
    if found is not None:
        job.folder.mkdir(parents=True, exist_ok=True)
        leave_run(job.folder, found)
        leave_state(job.folder, COMPLETED, filter_overrides(job.overrides))
    return found is not None


def launch_all(launcher: Launcher, jobs: Sequence[SweepJob]) -> None:
    """Launch the jobs until each has ended, one way or the other.

    Where the launcher itself breaks off, because a worker was killed, jobs that had begun are started once more, each
    alone, and those that had not all together.
    """
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    for job in jobs:
        job.forget()
    waiting = list(jobs)
    while waiting:
        broken = _launch(launcher, waiting)
        begun = [job for job in waiting if job.status == STARTED]
        left = [job for job in waiting if job.status is None]
        for job in begun:
            log.warning("%s ended without a word; started once more", job.name)
            again = _launch(launcher, [job])
            if job.status == STARTED:
                job.fail(again or broken or "killed")
        if len(left) == len(waiting):  # it cannot launch anything
            for job in left:
                job.fail(broken or ELSEWHERE.format(job.folder))
            return
        waiting = left


def check_ended(jobs: Sequence[SweepJob]) -> None:
    """Every job has ended well, and the store holds its run, undamaged.

    Raises:
        JobsFailed: says how many have not.
    """
    for job in jobs:
        if job.status == COMPLETED and not job.plans and (damage := _damage_of_run(job.folder)):
            job.fail(damage)
    failed = sum(job.status != COMPLETED for job in jobs)
    if failed:
        raise JobsFailed(f"{failed} of {len(jobs)} jobs failed; the same command runs them again, and nothing else")


def _damage_of_run(folder: Path) -> str | None:
    left = read_job(folder)
    if left.run is None:
        return left.error
    damage = find_damage(left.store / "runs" / left.run)
    return None if damage is None else f"run {left.run} is damaged: {damage}"


def _launch(launcher: Launcher, jobs: Sequence[SweepJob]) -> str | None:
    """Launch; what stopped the launcher, or None. A job that the launcher saw fail is noted where it could not."""
    try:
        returned = launcher.launch([_placed(job) for job in jobs], initial_job_idx=0)
    except SystemExit as error:
        if not isinstance(launcher, BasicLauncher):  # not a job's: ray leaves so at SIGTERM
            raise
        return error_line(error)
    except Exception as error:  # whatever a launcher, its cluster or a dying worker comes up with
        return error_line(error)
    for job, result in zip(jobs, returned, strict=True):
        if job.status not in (COMPLETED, FAILED) and isinstance(result, JobReturn):
            failed = result.status is not JobStatus.COMPLETED
            job.fail(error_line(result._return_value) if failed else ELSEWHERE.format(job.folder))
    return None


def _placed(job: SweepJob) -> list[str]:
    """Its words, and its folder's name: jobs that are launched are numbered anew by their launcher."""
    return [*job.overrides, f"hydra.sweep.subdir={json.dumps(job.name)}"]
