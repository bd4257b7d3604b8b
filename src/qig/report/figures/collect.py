"""The figures that finished runs have the data for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from qig.errors import ConfigError, QigError, StoreError, choices
from qig.report.comparison import Compared, comparison
from qig.report.figures import OF_RUN, OF_SAMPLE, OF_SWEEP
from qig.report.figures.files import write
from qig.report.records import Run

if TYPE_CHECKING:
    import pandas as pd

SWEEP_DATA: dict[str, Callable[[pd.DataFrame, Sequence[Run]], pd.DataFrame]] = {
    "method_differences": lambda frame, runs: _data("method_differences")(frame),
    "accuracy_bits": lambda frame, runs: _data("accuracy_bits")(frame, runs),
    "calibration_cost": lambda frame, runs: _data("calibration_cost")(runs),
    "completeness_nodes": lambda frame, runs: _data("completeness_nodes")(runs),
}


def worth_a_picture(runs: Sequence[Run], most: int) -> list[Run]:
    """At most so many of the runs that weigh tokens, those that weigh single ones first."""
    weighed = [run for run in runs if run.has_sensitivities
               and any(site["estimator"] not in (None, "uniform") for site in run.record["sites"])]
    return sorted(weighed, key=lambda run: run.config["sensitivity"]["granularity"] == "modality")[:most]


def write_run_figure(kind: str, run: Run, folder: Path, sample: int = 0) -> list[Path]:
    """Write one figure of a run, named after it; returns the paths of its CSV, PDF and PNG.

    Raises:
        QigError: the run does not have what the figure shows; the message says what is missing.
    """
    if kind not in (*OF_SAMPLE, *OF_RUN):
        raise ConfigError(choices(kind, (*OF_SAMPLE, *OF_RUN), "figure of a run"))
    frame = _data(kind)(run, sample) if kind in OF_SAMPLE else _data(kind)(run)
    return write(kind, frame, folder, f"{run.method}_{run.id[:10]}")


def write_sweep_figure(kind: str, frame: pd.DataFrame, runs: Sequence[Run], folder: Path) -> list[Path]:
    """Write one figure of a sweep; ``frame`` is the comparison of ``runs``.

    Raises:
        QigError: the runs do not have what the figure shows; the message says what is missing.
    """
    if kind not in OF_SWEEP:
        raise ConfigError(choices(kind, OF_SWEEP, "figure of a sweep"))
    return write(kind, SWEEP_DATA[kind](frame, runs), folder)


def write_all(
    rows: Sequence[Compared], folder: Path, kinds: Sequence[str] | None = None, *, runs: int = 1, sample: int = 0
) -> tuple[list[Path], list[str]]:
    """All figures that ``rows`` have the data for, those of single runs for the first ``runs`` that weigh tokens.

    Returns the paths written and, for each figure that could not be drawn, why. With ``kinds`` only these are drawn,
    and one that cannot be drawn is an error.
    """
    wanted = kinds or (*OF_SAMPLE, *OF_RUN, *OF_SWEEP)
    frame, every = comparison(rows), [row.run for row in rows]
    drawn = worth_a_picture(every, runs)
    if kinds and not drawn and set(kinds) - set(OF_SWEEP):
        raise StoreError(f"no run weighs tokens: nothing to draw for {', '.join(sorted(set(kinds) - set(OF_SWEEP)))}")
    written: list[Path] = []
    missing: list[str] = []
    for kind in wanted:
        try:
            if kind in OF_SWEEP:
                written += write_sweep_figure(kind, frame, every, folder)
            for run in drawn if kind not in OF_SWEEP else ():
                written += write_run_figure(kind, run, folder, sample)
        except QigError as error:
            if kinds:
                raise
            missing.append(f"{kind}: {error}")
    return written, missing


def _data(kind: str) -> Callable[..., pd.DataFrame]:
    """The kind's ``data``; modules are imported when they are needed."""
    return import_module(f"qig.report.figures.{kind}").data
