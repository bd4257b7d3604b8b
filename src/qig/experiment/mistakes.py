"""The mistakes in a sweep, found before any of its jobs is launched, and told once."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from hydra.core.utils import filter_overrides
from omegaconf import DictConfig

from qig.config.composed import typed_job
from qig.config.schema import Config
from qig.errors import ConfigError, QigError
from qig.evaluation.datasets import check_datasets
from qig.experiment.launching import SweepJob
from qig.runner import checked
from qig.secrets import refuse_in_config

NAMED = 5  # jobs of one mistake; it may be that of hundreds


def refuse_mistakes(jobs: Sequence[tuple[SweepJob, DictConfig]]) -> list[Config]:
    """The resolved configurations; a sweep of which a job cannot run is refused.

    As far as that shows without its device and without its store. ``jobs``: each with its composed configuration.

    Raises:
        ConfigError: names each mistake once, and the jobs that it is in.
    """
    ask = Once()
    resolved: list[Config] = []
    found: dict[str, list[SweepJob]] = {}
    for job, composed in jobs:
        try:
            config = typed_job(composed)
            refuse_in_config(asdict(config))
            resolved.append(checked(config, ask)[0])
        except QigError as error:
            found.setdefault(str(error), []).append(job)
    if found:
        wrong = sum(map(len, found.values()))
        lines = [f"{wrong} of {len(jobs)} jobs cannot run; none was launched"]
        for mistake, those in found.items():
            lines += [mistake, *(f"  job {job.name}: {_words(job)}" for job in those[:NAMED])]
            if len(those) > NAMED:
                lines.append(f"  and {len(those) - NAMED} more jobs")
        raise ConfigError("\n".join(lines))
    return resolved


def refuse_absent_data(jobs: Sequence[tuple[SweepJob, DictConfig]]) -> None:
    """Of the jobs that are to be launched, so that it is not each of them that finds out when its turn has come.

    Raises:
        DataError: a benchmark's data is neither here nor may be fetched.
    """
    ask = Once()
    for evaluation in (typed_job(composed).evaluation for job, composed in jobs if not job.plans):
        ask(check_datasets, evaluation.tasks, evaluation.include_path)


class Once:
    """Calls a function once with the same arguments; what it returned or raised then, it does again."""

    def __init__(self) -> None:
        self._said: dict[tuple[Callable[..., Any], str], tuple[Any, QigError | None]] = {}

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        key = function, repr(arguments)
        if key not in self._said:
            try:
                self._said[key] = function(*arguments), None
            except QigError as error:
                self._said[key] = None, error
        value, error = self._said[key]
        if error is not None:
            raise error
        return value


def _words(job: SweepJob) -> str:
    return shlex.join(filter_overrides(job.overrides))
