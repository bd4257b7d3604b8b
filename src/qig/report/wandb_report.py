"""The report of a finished sweep in W&B: its grid as one table, its figures as images, in one run of its own."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qig.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd

TABLE = "grid"
JOB_TYPE = "report"


def add_option(parser: argparse.ArgumentParser) -> None:
    """``--wandb`` of a command that writes a report."""
    parser.add_argument("--wandb", action="store_true", help="log the report to W&B as well, as the overrides of "
                        "tracking say (tracking.project=NAME): offline below outputs/, for `wandb sync`, unless "
                        "tracking.mode=online or WANDB_MODE=online")


def log_report(frame: pd.DataFrame, figures: Iterable[Path], name: str, tracking: Mapping[str, Any],
               about: Mapping[str, Any] | None = None) -> None:
    """Log ``frame`` as the table ``grid`` and each PNG of ``figures`` as ``figures/<file name>``.

    The W&B run is called after ``name``, is in the group ``name`` unless ``tracking`` has another one, and has the job
    type ``report``, so that the web view can tell it from the jobs of the sweep. Dots in column names, which the web
    view takes for nested values, become slashes. ``tracking``: as in ``conf/tracking``; ``about``: what else the run's
    configuration says, such as the overrides.

    Raises:
        StoreError: W&B could not be started, or failed; the reason was logged.
    """
    from qig.tracking import has_kept, tracker

    config = {"report": name, **(about or {}), "tracking": dict(tracking)}
    renamed = frame.rename(columns=lambda column: str(column).replace(".", "/"))
    with tracker(config, f"report {name}", name, JOB_TYPE) as active:
        active.log_comparison(renamed, TABLE)
        for path in sorted(path for path in figures if path.suffix == ".png"):
            active.log_figure(path.stem, path)
        # One who asked for it by hand is told; a job of a sweep would go on without.
        kept = has_kept(active)
    if not kept:
        raise StoreError(f"the report {name} is not in W&B: see the warning above")
