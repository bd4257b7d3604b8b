"""A run of the store as one run of W&B: its name and identity there, what is logged, and a note that it was.

A run that is made again (requeued, in another sweep) continues its W&B run. One that the store has is logged, too,
unless a note says that it was: that costs reading a file.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hydra.types import RunMode
from omegaconf import DictConfig

from qig.config.digest import digest
from qig.config.naming import run_name
from qig.config.schema import Config
from qig.errors import QigError
from qig.runner import BASELINES, Outcome, Prepared
from qig.store.files import write_text
from qig.tracking import Tracker, has_kept, mode_of, tracker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where the run of a job goes in W&B.

    ``config``: resolved; ``key``: the run's id in the store; ``words``: the job's overrides; ``sweep``: the name of its
    sweep's folder, None of a single job.
    """

    config: Config
    key: str
    words: Sequence[str]
    sweep: str | None

    @classmethod
    def of(cls, config: Config, key: str, hydra: DictConfig) -> Place:
        """``hydra``: Hydra's own part of the job's configuration."""
        sweep = Path(hydra.sweep.dir).name if hydra.mode is RunMode.MULTIRUN else None
        return cls(config, key, list(hydra.overrides.task), sweep)

    @property
    def nowhere(self) -> bool:
        tracking = self.config.tracking
        return tracking.kind == "none" or mode_of(asdict(tracking)) == "disabled"

    @property
    def run_id(self) -> str:
        """The key; in a group that was asked for, the group's own, so that no other sweep takes the run out of it."""
        group = self.config.tracking.group
        return self.key if group is None else f"{self.key}-{digest(group)[:8]}"

    def tracker(self) -> AbstractContextManager[Tracker]:
        name = run_name(self.config, self.words, self.key)
        return tracker(asdict(self.config), name, self.sweep, self.config.method, self.run_id)

    @property
    def is_noted(self) -> bool:
        """Whether this run was logged from here, to the same place; a single job leaves it in the group that it has."""
        try:
            where, group = self._note.read_text().splitlines()
        except (OSError, ValueError):
            return False
        return where == self._where and (self._group is None or group == json.dumps(self._group))

    def note(self) -> None:
        """Remember that the run has been logged."""
        try:
            self._note.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._note, f"{self._where}\n{json.dumps(self._group)}\n")
        except OSError as error:  # it would be logged once more
            log.warning("it cannot be noted that %s is in W&B: %s", self.key, error)

    @property
    def _group(self) -> str | None:
        return self.config.tracking.group or self.sweep

    @property
    def _where(self) -> str:
        tracking = self.config.tracking
        return json.dumps([mode_of(asdict(tracking)), tracking.entity, tracking.project])

    @property
    def _note(self) -> Path:
        return Path(self.config.tracking.dir, "wandb", "logged", f"{self.run_id}.json")


def tracked(prepared: Prepared, hydra: DictConfig) -> Outcome:
    """Make the run, or find it in the store, and log it; what fails marks its W&B run as failed.

    ``hydra``: Hydra's own part of the job's configuration.
    """
    place = Place.of(prepared.config, prepared.key, hydra)
    if place.nowhere or (prepared.cached and place.is_noted):
        return prepared.run()
    with place.tracker() as active:
        outcome = prepared.run()
        _log(active, outcome)
    if has_kept(active):
        place.note()
    return outcome


def log_stored(config: Config, outcome: Outcome, hydra: DictConfig) -> None:
    """Log a run that was not made since the store has it, unless it was logged before. ``config``: resolved."""
    place = Place.of(config, outcome.run, hydra)
    if place.nowhere or place.is_noted:
        return
    with place.tracker() as active:
        _log(active, outcome)
    if has_kept(active):
        place.note()


def _log(active: Tracker, outcome: Outcome) -> None:
    """A run that was just made gets a figure, too."""
    from qig.report.comparison import Compared, comparison
    from qig.report.figures.collect import write_run_figure
    from qig.report.records import load_run
    from qig.report.summaries import standing

    try:
        run, *baselines = (
            None if key is None else load_run(outcome.store, key)
            for key in (outcome.run, *(outcome.baselines.get(title) for title in BASELINES))
        )
        active.log_run(run)
        frame = comparison([Compared(run, *baselines)])
        active.log_summary(standing(frame))
        active.log_comparison(frame)
        if run.has_sensitivities and not outcome.cached:
            with TemporaryDirectory() as folder:
                *_, image = write_run_figure("token_sensitivity", run, Path(folder))
                active.log_figure("token_sensitivity", image)
    except QigError as error:  # of a run that is finished, and stays so
        log.warning("W&B lacks a part of run %s: %s", outcome.run, error)
