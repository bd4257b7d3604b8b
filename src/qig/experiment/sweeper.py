"""Hydra's basic sweeper, and beside the product of its parameters a list of arms (see ``jobs``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress, count
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf

from qig.config.composed import Composer
from qig.config.schema import Config
from qig.config.threads import available_threads
from qig.experiment import launchers
from qig.experiment.jobs import jobs, warn_of_replaced
from qig.experiment.launchers import check_installed
from qig.experiment.launching import (
    SweepJob,
    check_ended,
    foresee,
    launch_all,
    note_if_in_store,
    outcome_in_store,
    place,
    track_stored,
)
from qig.experiment.mistakes import refuse_absent_data, refuse_mistakes
from qig.experiment.spec import chosen_arms, read_figures, read_table
from qig.report.tables.placing import checked_table


@dataclass
class ArmSweeperConf:
    """``only``: of the arms those that are run. ``table`` and ``figures`` say how the result is shown."""

    _target_: str = "qig.experiment.sweeper.ArmSweeper"
    max_batch_size: int | None = None
    params: dict[str, Any] | None = None
    arms: dict[str, Any] = field(default_factory=dict)
    only: list[str] | None = None
    table: dict[str, Any] | None = None
    figures: list[str] | None = None


class ArmSweeper(BasicSweeper):
    """Hydra's own, with arms, and with jobs that neither run twice nor stop each other (see ``launching``).

    A table or figure that cannot be made later is refused before anything runs.
    """

    def __init__(
        self,
        max_batch_size: int | None,
        params: dict[str, str] | None,
        arms: dict[str, str],
        only: list[str] | None,
        table: dict[str, Any] | None,
        figures: list[str] | None,
    ) -> None:
        super().__init__(max_batch_size, dict(params or {}))
        self.table = None if table is None else read_table(plain(table), arms)
        self.arms = chosen_arms(arms, plain(only), self.table)
        read_figures(plain(figures))

    def setup(self, *, config: DictConfig, **given: Any) -> None:
        check_installed(config.hydra.launcher._target_)
        super().setup(config=config, **given)

    def sweep(self, arguments: list[str]) -> None:
        """Run what the store lacks of the jobs; all are composed before any of them starts.

        Raises:
            ConfigError: a job cannot be composed, it shows already that it cannot run, or two fall into one cell of the
                table; nothing has run.
            JobsFailed: some have failed; the others are done.
        """
        self._arguments = arguments
        warn_of_replaced(self.arms, arguments)
        batches = [[self._with_threads(words) for words in batch]
                   for batch in self.split_arguments([], self.max_batch_size)]
        number = count(0)
        compose = Composer(lambda words: self.hydra_context.config_loader.load_sweep_config(self.config, words))
        placed = [[self._placed(next(number), words, compose) for words in batch] for batch in batches]
        self._check_cells(refuse_mistakes([one for batch in placed for one in batch]))
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        stored = []
        for batch in placed:
            there = [note_if_in_store(*one, outcome_in_store) for one in batch]
            lacking = [one for one, is_there in zip(batch, there, strict=True) if not is_there]
            refuse_absent_data(lacking)
            launch_all(self.launcher, [job for job, _ in lacking])
            stored += compress(batch, there)
        for one in stored:  # at the end, so that no job waits for it
            track_stored(*one)
        check_ended([job for batch in placed for job, _ in batch])

    def _placed(self, number: int, words: list[str], compose: Composer) -> tuple[SweepJob, DictConfig]:
        composed = compose(words)
        return place(composed, number, words), composed

    def _check_cells(self, configs: Sequence[Config]) -> None:
        """ConfigError where the table could not be made of the jobs' runs."""
        if self.table is None:
            return
        planned = jobs(self.params, self.arms, self._arguments)
        foreseen = [foresee(job, config) for job, config in zip(planned, configs, strict=True)]
        checked_table(self.table, "this experiment", foreseen)

    def _with_threads(self, words: list[str]) -> list[str]:
        """The number of threads is part of a run's identity: it is that of this machine, wherever the job runs."""
        open_here = "threads" in self.config and self.config.threads is None
        if not open_here or any(word.partition("=")[0] == "threads" for word in words):
            return words
        return [*words, f"threads={available_threads()}"]

    def split_arguments(self, overrides: list, max_batch_size: int | None) -> list[list[list[str]]]:
        batch = [list(job.overrides) for job in jobs(self.params, self.arms, self._arguments)]
        return list(self.split_overrides_to_chunks(batch, max_batch_size))


def plain(values: Any) -> Any:
    """A part of the sweeper's configuration as dicts and lists."""
    return OmegaConf.to_container(values, resolve=True) if OmegaConf.is_config(values) else values


def register() -> None:
    """Make ``hydra/sweeper=arms`` and our launchers known to Hydra."""
    launchers.register()
    Plugins.instance().register(ArmSweeper)
    ConfigStore.instance().store(group="hydra/sweeper", name="arms", node=ArmSweeperConf, provider="qig", replace=True)
