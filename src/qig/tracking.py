"""Experiment tracking of one job, by W&B or by nobody; a tracker that fails never takes the job with it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from qig.errors import ConfigError, choices
from qig.report.records import Run
from qig.report.summaries import per_sample, search_curves, sensitivity_shares, sites, summary
from qig.secrets import masked, without_secrets
from qig.wandb_table import table

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

KINDS = ("none", "wandb")
SETTINGS = {
    # The command line may hold a secret, and the run record already says which code and packages ran.
    "x_disable_meta": True, "x_save_requirements": False, "disable_git": True, "disable_code": True,
    # By default W&B retries for hours, also while the process exits. What is not uploaded stays for `wandb sync`.
    "x_graphql_retry_max": 3, "x_graphql_retry_wait_max_seconds": 4.0, "x_graphql_timeout_seconds": 10.0,
    "x_file_stream_retry_max": 5, "x_file_stream_retry_wait_max_seconds": 10.0,
    "x_file_transfer_retry_max": 5, "x_file_transfer_retry_wait_max_seconds": 10.0,
}
# Silence that a setting comes too late for, and no crash reports to W&B's own collector; a user's choice wins.
ENVIRONMENT = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}


class Tracker(Protocol):
    """What the runner may tell a tracker about one job. No method raises because of the tracker."""

    def log_run(self, run: Run) -> None:
        """Metrics, search curves, completeness, sensitivity shares and per-sample results of a finished run."""

    def log_summary(self, values: Mapping[str, float]) -> None:
        """Numbers that runs are sorted by, beside those of ``log_run``."""

    def log_comparison(self, frame: pd.DataFrame, name: str = "comparison") -> None:
        """A table from ``qig.report.comparison``, or another frame under its own name."""

    def log_figure(self, name: str, path: Path) -> None:
        """An image file (PNG)."""

    def finish(self, exit_code: int) -> None:
        """Close; any ``exit_code`` but 0 marks the job as failed."""


class NoTracking:
    """Keeps nothing."""

    def log_run(self, run: Run) -> None:
        pass

    def log_summary(self, values: Mapping[str, float]) -> None:
        pass

    def log_comparison(self, frame: pd.DataFrame, name: str = "comparison") -> None:
        pass

    def log_figure(self, name: str, path: Path) -> None:
        pass

    def finish(self, exit_code: int) -> None:
        pass


class WandbTracking:
    """One W&B run. The first failure is logged as a warning and ends the logging, not the job."""

    def __init__(self, session: Any, *, artifacts: bool) -> None:
        self.session = session
        self.artifacts = artifacts
        self.broken = False

    def log_run(self, run: Run) -> None:
        self._attempt(lambda: self._log_run(run))

    def log_summary(self, values: Mapping[str, float]) -> None:
        self._attempt(lambda: self.session.summary.update(dict(values)))

    def log_comparison(self, frame: pd.DataFrame, name: str = "comparison") -> None:
        self._attempt(lambda: self.session.log({name: table(list(frame.columns), frame.itertuples(index=False))}))

    def log_figure(self, name: str, path: Path) -> None:
        def image() -> None:
            import wandb

            self.session.log({f"figures/{name}": wandb.Image(str(path))})

        self._attempt(image)

    def finish(self, exit_code: int) -> None:
        self._attempt(lambda: self.session.finish(exit_code=exit_code), even_if_broken=True)
        if self.broken:
            _forget_service()

    def _log_run(self, run: Run) -> None:
        record = run.record
        about = {key: record[key] for key in ("id", "method", "stages", "environment") if key in record}
        self.session.config.update({"record": without_secrets(about)}, allow_val_change=True)
        tables = {"search_curves": search_curves(run), "sites": sites(run), "samples": per_sample(run)}
        if run.has_sensitivities:
            tables["sensitivity_shares"] = sensitivity_shares(run)
        self.session.log({name: table(*rows) for name, rows in tables.items()})
        self.session.summary.update(summary(run))
        if self.artifacts and run.quantized_folder is not None:
            self._log_artifact(run)

    def _log_artifact(self, run: Run) -> None:
        import wandb

        artifact = wandb.Artifact(f"quantized-{run.record['stages']['quantized'][:32]}", type="quantized")
        for path in sorted(path for path in run.quantized_folder.rglob("*") if path.is_file()):
            # The store never changes a finished stage, so W&B need not keep a copy of its own.
            artifact.add_file(str(path), name=path.relative_to(run.quantized_folder).as_posix(), policy="immutable")
        self.session.log_artifact(artifact)

    def _attempt(self, action: Callable[[], None], *, even_if_broken: bool = False) -> None:
        if self.broken and not even_if_broken:
            return
        try:
            action()
        except Exception as error:  # W&B passes on errors of its service, its network and the disk alike
            if not self.broken:
                _warn(error)
            self.broken = True


def mode_of(tracking: Mapping[str, Any]) -> str:
    """``offline``, ``online`` or ``disabled``: WANDB_MODE, or else what the configuration says."""
    return os.environ.get("WANDB_MODE") or tracking["mode"]


@contextmanager
def tracker(config: Mapping[str, Any], name: str, group: str | None, job_type: str,
            run_id: str | None = None) -> Iterator[Tracker]:
    """The tracker of one job, as ``config["tracking"]`` asks for it.

    ``tracking``: ``kind`` (none, wandb), ``mode`` (offline, online, disabled; WANDB_MODE overrides it), ``project``,
    ``entity``, ``dir``, ``group`` (overrides ``group``), ``tags``, ``artifacts``. ``run_id``: of the W&B run, which is
    continued where the project has it already; None: a new one. An exception inside marks the job as
    failed and goes on. ConfigError for another kind; W&B that cannot start is one warning and no tracking.
    """
    if (kind := config["tracking"]["kind"]) not in KINDS:
        raise ConfigError(choices(kind, KINDS, "tracking kind"))
    active: Tracker = NoTracking() if kind == "none" else _start(config, name, group, job_type, run_id)
    try:
        yield active
    except BaseException:
        active.finish(exit_code=1)
        raise
    active.finish(exit_code=0)


def has_kept(active: Tracker) -> bool:
    """Whether the tracker keeps something at all, and none of it has failed."""
    return isinstance(active, WandbTracking) and not active.broken


def _start(config: Mapping[str, Any], name: str, group: str | None, job_type: str, run_id: str | None) -> Tracker:
    tracking = config["tracking"]
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    try:
        import wandb

        # W&B would fall back to a temporary folder without saying so.
        Path(tracking["dir"]).mkdir(parents=True, exist_ok=True)
        # Those named x_... may come and go with W&B's versions.
        known = {key: value for key, value in SETTINGS.items() if key in wandb.Settings.model_fields}
        settings = wandb.Settings(silent=True, console="off", **known)
        session = wandb.init(
            mode=mode_of(tracking), project=tracking["project"],
            entity=tracking["entity"], dir=str(tracking["dir"]), group=tracking["group"] or group,
            tags=list(tracking["tags"]), name=name, job_type=job_type, config=without_secrets(config),
            id=run_id, resume=None if run_id is None else "allow", reinit="create_new", settings=settings)
    except Exception as error:  # no login, no network, no disk, no free port: none of it concerns the job
        _warn(error)
        return NoTracking()
    return WandbTracking(session, artifacts=bool(tracking["artifacts"]))


def _forget_service() -> None:
    """Let go of W&B's own process, which may be dead: else its hook prints a traceback when this process ends."""
    import wandb

    with suppress(Exception):
        wandb.teardown(exit_code=1)


def _warn(error: Exception) -> None:
    first = masked((str(error).strip().splitlines() or [""])[0])
    log.warning("W&B tracking is off for the rest of this job (%s: %s)", type(error).__name__, first)
