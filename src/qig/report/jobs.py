"""What the jobs of one command left in their output folders: a run, or an account of why there is none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from qig.errors import QigError, StoreError
from qig.report import schema
from qig.report.comparison import Compared
from qig.report.records import Run, load_run
from qig.secrets import without_secrets
from qig.store.files import write_text

RUN_FILE = "run.json"
STATE_FILE = "job.json"
STARTED, COMPLETED, FAILED = "started", "completed", "failed"
UNFINISHED = "ended without a word (killed, or still running)"


@dataclass(frozen=True)
class Job:
    """One job's output folder. ``error`` is None exactly when the job left a run."""

    folder: Path
    overrides: Sequence[str] = ()
    run: str | None = None
    store: Path | None = None
    cached: bool = False
    baselines: dict[str, str | None] = field(default_factory=dict)
    error: str | None = None

    @property
    def outcome(self) -> str:
        """``failed``, ``cached`` (the store had the run already) or ``done``."""
        return FAILED if self.error is not None else "cached" if self.cached else "done"


def leave_run(folder: Path, left: Mapping[str, Any]) -> None:
    """Write run.json: the ids of a job's run and of those that it is compared with, their store, and if it had it."""
    write_text(folder / RUN_FILE, json.dumps(left) + "\n")


def leave_state(folder: Path, status: str, overrides: Sequence[str], error: str | None = None) -> None:
    """Write job.json: STARTED, COMPLETED or FAILED, the job's words, and why it failed."""
    state = without_secrets({"status": status, "overrides": list(overrides), "error": error})
    write_text(folder / STATE_FILE, json.dumps(state, indent=2) + "\n")


def status(folder: Path) -> str | None:
    """What job.json says, or None where there is none."""
    try:
        state = _read(folder / STATE_FILE, schema.STATE)
        return None if state is None else state["status"]
    except StoreError:
        return None


def error_line(error: BaseException) -> str:
    """An exception in one line; its kind goes without saying where the message is meant for the user."""
    kind = "" if isinstance(error, QigError) else f"{type(error).__name__}: "
    return f"{kind}{error}".strip().splitlines()[0]


def fingerprint(folder: Path) -> dict[Path, int]:
    """Change times (ns) of the files that jobs leave below ``folder``: tells this command's jobs from older ones."""
    return {path: path.stat().st_mtime_ns for name in (RUN_FILE, STATE_FILE)
            for path in (*folder.glob(name), *folder.glob(f"*/{name}"))}


def read_jobs(folder: Path, before: dict[Path, int] | None = None) -> list[Job]:
    """The jobs below ``folder`` (or ``folder`` itself), in numerical or else alphabetical order.

    ``before``, a :func:`fingerprint` from the start of a command, leaves out folders that it has not touched.
    """
    before = before or {}
    changed = {path.parent for path, time in fingerprint(folder).items() if before.get(path) != time}
    numbered = sorted(changed, key=lambda path: (not path.name.isdigit(), path.name.zfill(12), path.name))
    return [read_job(path) for path in numbered]


def read_job(folder: Path) -> Job:
    """One job's folder; whatever is wrong with it becomes the job's ``error``."""
    try:
        state = _read(folder / STATE_FILE, schema.STATE) or {"status": COMPLETED}
        overrides = state.get("overrides", ())
        if state["status"] != COMPLETED:
            return Job(folder, overrides, error=state.get("error") or UNFINISHED)
        left = _read(folder / RUN_FILE, schema.LEFT)
        if left is None:
            return Job(folder, overrides, error=f"completed without leaving {RUN_FILE}")
        return Job(folder, overrides, left["run"], Path(left["store"]), left["cached"], left["baselines"])
    except StoreError as error:
        return Job(folder, error=f"unreadable job files ({error})")


def compared(jobs: Sequence[Job]) -> tuple[list[Compared], list[str]]:
    """A row a run, each baseline's own row before the first run that names it, and what could not be read."""
    named = {(job.store, job.run) for job in jobs if job.run}
    rows: dict[tuple[Path, str], Compared] = {}
    problems = []

    def read(job: Job, run_id: str | None) -> Run | None:
        if run_id is None:
            return None
        known = next((row.run for key, row in rows.items() if key == (job.store, run_id)), None)
        try:
            return known or load_run(job.store, run_id)
        except (StoreError, OSError) as error:
            problems.append(f"{job.folder.name}: {error}")
            return None

    for job in jobs:
        run = read(job, job.run)
        if run is None:
            continue
        sixteen, rtn = (read(job, job.baselines.get(name)) for name in ("16 bit", "rtn"))
        for baseline, row in ((sixteen, Compared(sixteen)), (rtn, Compared(rtn, sixteen))):
            if baseline is not None and (job.store, baseline.id) not in named:
                rows.setdefault((job.store, baseline.id), row)
        rows[job.store, run.id] = Compared(run, sixteen, rtn)
    return list(rows.values()), problems


def _read(path: Path, kind: TypeAdapter) -> dict | None:
    try:
        return schema.parsed(schema.read(path), str(path), kind)
    except FileNotFoundError:
        return None
