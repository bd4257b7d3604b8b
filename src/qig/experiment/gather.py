"""An experiment's runs, found by composing each job's configuration and computing its run's identity."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from hydra import compose

from qig.config import conf_dir, own
from qig.config.composed import Composer, composing, typed_job
from qig.config.schema import Config
from qig.config.validation import resolve
from qig.errors import ConfigError, StoreError, choices
from qig.experiment.jobs import Job, jobs, warn_of_replaced
from qig.experiment.spec import Table, chosen_arms, read_figures, read_table
from qig.experiment.sweeper import plain
from qig.models import checkpoint
from qig.report.figures.files import kind_of
from qig.report.records import Run, load_run
from qig.report.tables.placing import Foreseen, checked_table
from qig.stages import Keys, Stages, decide


@dataclass(frozen=True)
class Planned:
    """A job, its resolved configuration, and what it is called in its store."""

    job: Job
    config: Config
    keys: Keys
    stages: Stages

    @cached_property
    def finished(self) -> bool:
        return self.stages.has_record(self.keys)


@dataclass(frozen=True)
class Row:
    """A finished job: its arm, the values of the swept keys as they are written, and its run."""

    arm: str | None
    point: Mapping[str, str]
    run: Run

    @property
    def id(self) -> str:
        return self.run.id

    @property
    def config(self) -> Mapping[str, Any]:
        return self.run.config


@dataclass(frozen=True)
class Found:
    """An experiment whose runs are all there. ``figures``: the kinds that it shows; ``arms``: what makes each.

    ``sweeps``: the folders whose jobs made the runs; none where they were looked up in the store.
    """

    name: str
    overrides: tuple[str, ...]
    table: Table
    rows: list[Row]
    figures: tuple[str, ...] = ()
    arms: Mapping[str, str] = field(default_factory=dict)
    sweeps: tuple[str, ...] = ()


def plan(name: str, overrides: Sequence[str] = ()) -> list[Planned]:
    """Every job of ``qig -m +experiment=NAME OVERRIDES``, in its order. Loads no model and runs nothing.

    Raises:
        ConfigError: no such experiment, or a job whose configuration cannot be run.
        QigError: a checkpoint or device that is not there.
    """
    hashes: dict[Path, str] = {}
    planned, wanted = [], jobs_of(name, overrides)
    with composing():
        for job in wanted:
            config = _config(job)
            folder = checkpoint.resolve(config.model.path)
            decide(config, folder)
            if folder not in hashes:  # gigabytes, for a real model
                hashes[folder] = checkpoint.content_hash(folder)
            stages = Stages.of(config, hashes[folder])
            planned.append(Planned(job, config, stages.keys(config), stages))
    return planned


def table_of(name: str, overrides: Sequence[str] = ()) -> Table:
    """How the experiment is tabulated.

    Raises:
        ConfigError: as in ``read_table``; or it is called as a kind of figure, with whose files its table would go.
    """
    if (kind := kind_of(Path(f"{name}."))) is not None:
        raise ConfigError(f"experiment {name}: {kind} is a kind of figure; call the experiment otherwise")
    sweep = sweep_of(name, overrides)
    return read_table(sweep["table"], sweep["arms"], name)


def arms_of(name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The arms that are run, and the words of each."""
    sweep = sweep_of(name, overrides)
    return chosen_arms(sweep["arms"], sweep["only"], table_of(name, overrides) if sweep["table"] else None)


def jobs_of(name: str, overrides: Sequence[str] = ()) -> list[Job]:
    """The jobs of ``qig -m +experiment=NAME OVERRIDES``, in its order."""
    params = sweep_of(name, overrides)["params"] or {}
    return jobs(params, arms_of(name, overrides), [f"+experiment={name}", *overrides])


def gather(name: str, overrides: Sequence[str] = ()) -> Found:
    """The experiment with all of its runs.

    Raises:
        ConfigError: two of its jobs fall into one cell.
        StoreError: some are missing; names them, and the command that makes them.
    """
    warn_of_replaced(arms_of(name, overrides), overrides)
    planned = plan(name, overrides)
    foreseen = [Foreseen.of(one.job, one.config, one.keys.run) for one in planned]
    table = checked_table(table_of(name, overrides), name, foreseen)
    missing = {one.keys.run: one for one in planned if not one.finished}
    if missing:
        raise StoreError(_absent(name, overrides, planned, missing))
    runs: dict[str, Run] = {}
    rows = []
    for one in planned:
        run = one.keys.run
        if run not in runs:
            runs[run] = load_run(one.stages.store.root, run)
        rows.append(Row(one.job.arm, dict(one.job.point), runs[run]))
    figures = read_figures(sweep_of(name, overrides)["figures"])
    return Found(name, tuple(overrides), table, rows, figures, arms_of(name, overrides))


def tracking_of(name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """How the experiment's jobs are tracked (as in ``conf/tracking``), which is how its report is.

    Raises:
        ConfigError: they are not tracked, or an override of ``tracking`` cannot be composed.
    """
    words = [word for word in overrides if re.match(rf"[+~]*tracking[.@=]|{re.escape(own.SEARCH)}=", word)]
    with composing():
        tracking = plain(_composer()([f"+experiment={name}", *words]).tracking)
    if tracking["kind"] == "none":
        raise ConfigError(f"{' '.join(words)}: a report in W&B needs tracking=wandb; leave that out, or --wandb")
    return tracking


def experiments(overrides: Sequence[str] = ()) -> list[str]:
    """The names of all experiments, sorted; also of those in folders that overrides add."""
    folders = [conf_dir(), *own.folders(overrides)]
    return sorted({path.stem for folder in folders for path in (folder / "experiment").glob("*.yaml")})


def tabulated(on_request: bool = True, overrides: Sequence[str] = ()) -> list[str]:
    """The names of the experiments that say how they are tabulated, with or without those that want to be named."""
    tables = {name: sweep_of(name, overrides)["table"] for name in experiments(overrides)}
    return [name for name, table in tables.items() if table and (on_request or not table.get("on_request"))]


def _absent(name: str, overrides: Sequence[str], planned: Sequence[Planned], missing: Mapping[str, Planned]) -> str:
    distinct = len({one.keys.run for one in planned})
    lines = [f"{len(missing)} of {distinct} runs of {name} are not in the store {planned[0].stages.store.root}:"]
    lines += [f"  {run}  {one.job.arm or one.config.method}  {shlex.join(_words(one.job))}"
              for run, one in list(missing.items())[:20]]
    if len(missing) > 20:
        lines.append(f"  and {len(missing) - 20} more")
    return "\n".join([*lines, f"make them: {shlex.join(['qig', '-m', f'+experiment={name}', *overrides])}"])


def _words(job: Job) -> list[str]:
    return [word for word in job.overrides if not word.startswith("+experiment=")]


def sweep_of(name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The experiment's part of ``hydra.sweeper`` as plain data, such as its ``params`` and ``arms``."""
    return _composed_sweep(name, tuple(word for word in overrides if word.lstrip("+~").startswith("hydra")))


@cache
def _composed_sweep(name: str, words: tuple[str, ...]) -> dict[str, Any]:
    if name not in (known := experiments(words)):
        raise ConfigError(choices(name, known, "experiment"))
    with composing():
        composed = compose("config", [f"+experiment={name}", *words], return_hydra_config=True)
    return plain(composed.hydra.sweeper)


def _config(job: Job) -> Config:
    return resolve(typed_job(_composer()(job.overrides)))


@cache
def _composer() -> Composer:
    """One for the process: whoever plans an experiment gathers it, too."""
    return Composer(lambda words: compose("config", words, return_hydra_config=True))
