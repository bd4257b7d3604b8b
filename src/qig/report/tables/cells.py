"""An experiment as a tidy frame: one line a cell and metric, with differences to the controls and their tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qig.experiment.gather import Found
from qig.report.metrics import Metric, metric_of
from qig.report.records import Run
from qig.report.statistics import Difference, compare, detectable
from qig.report.statistics.significance import holm
from qig.report.tables.paired import aligned
from qig.report.tables.places import Place, places, run_ids

if TYPE_CHECKING:
    import pandas as pd


def cells(found: Found) -> pd.DataFrame:
    """One line a metric and cell, in units of the records (fractions of 1, nats, seconds, bytes).

    Columns: the row and column keys, ``metric``, ``value, low, high`` (95%), ``samples``, ``seeds``; ``rank`` among
    the values of the last row key (1 best; NaN for references) and ``mark`` (``best``, ``second``); for each control
    ``vs_NAME``, ``_low``, ``_high``, ``_p`` (t-test), ``_holm`` (Holm's over the metric and control), ``_detectable``
    (80% power at 5%), ``_runs``; and ``runs``, all ids in the order of the pairs. References are not among the claims
    that Holm's corrects for.
    """
    import pandas as pd

    made = places(found)
    tasks = list(dict.fromkeys(task for place in made for run in place.runs for task in run.by_task))
    lines: list[dict[str, Any]] = []
    for name in _expanded(found.table.metrics, tasks):
        part = [_line(found, place, name) for place in made]
        _rank(found, name, part, made)
        for control in found.table.controls:
            rivals = [line for line, place in zip(part, made, strict=True) if place.arm not in found.table.references]
            correct(rivals, f"vs_{control}_p", f"vs_{control}_holm")
        lines += part
    return pd.DataFrame(lines)


def _expanded(metrics: Sequence[str], tasks: Sequence[str]) -> list[str]:
    names = []
    for name in metrics:
        names.append(name)
        if metric_of(name).field and len(tasks) > 1:
            names += [f"{name}.{task}" for task in tasks]
    return names


def _line(found: Found, place: Place, name: str) -> dict[str, Any]:
    metric = metric_of(name)
    line: dict[str, Any] = {**place.keys, "metric": name}
    cell = _sampled if metric.field else _whole
    line |= cell(found, place, name, metric)
    return line | {"runs": " ".join(run_ids(place.runs))}


def _sampled(found: Found, place: Place, name: str, metric: Metric) -> dict[str, Any]:
    task = name.partition(".")[2] or None
    values, clusters, strata = aligned(place.runs, metric.field, task)
    own = _compared(values, clusters, strata)
    line: dict[str, Any] = {"value": own.mean, "low": own.low, "high": own.high, "samples": own.samples,
                            "seeds": own.seeds}
    for control in found.table.controls:
        if control not in place.controls:
            line |= _difference(control, None, ())
            continue
        runs = place.controls[control]
        both, clusters, strata = aligned((*place.runs, *runs), metric.field, task)
        line |= _difference(control, _compared(both[: len(runs)] - both[len(runs):], clusters, strata), runs)
    return line


def _compared(values: np.ndarray, clusters: Sequence[str], strata: Sequence[str]) -> Difference:
    if not values.size:
        nan = math.nan
        return Difference(nan, nan, nan, nan, nan, nan, *values.shape)
    return compare(values, clusters, strata)


def _difference(control: str, found: Difference | None, runs: Sequence[Run]) -> dict[str, Any]:
    nan = math.nan
    values = (nan,) * 5 if found is None else (found.mean, found.low, found.high, found.p, nan)
    names = ("", "_low", "_high", "_p", "_holm")
    seen = nan if found is None else detectable(found.error, found.df)
    return {**{f"vs_{control}{end}": value for end, value in zip(names, values, strict=True)},
            f"vs_{control}_detectable": seen, f"vs_{control}_runs": " ".join(run_ids(runs))}


def _whole(found: Found, place: Place, name: str, metric: Metric) -> dict[str, Any]:
    first = place.controls.get(found.table.controls[0])
    controls = first or (None,) * len(place.runs)
    values = [metric.whole(run, control) for run, control in zip(place.runs, controls, strict=True)]
    line: dict[str, Any] = {"value": float(np.mean(values)), "low": math.nan, "high": math.nan, "samples": 0,
                            "seeds": len(values)}
    for control in found.table.controls:
        line |= _difference(control, None, ())
    return line


def _rank(found: Found, name: str, lines: Sequence[dict], made: Sequence[Place]) -> None:
    """Rank among what differs in the last row key alone.

    Values that are printed alike share a rank, and the next one is skipped.

    A table about one arm ranks nothing: its lines are different problems, not rivals.
    """
    metric, last = metric_of(name), found.table.rows[-1]
    better = metric.better
    rivals_stand = better and len(found.table.shown) != 1
    groups: dict[tuple, list[dict]] = {}
    for line, place in zip(lines, made, strict=True):
        line |= {"rank": math.nan, "mark": ""}
        if rivals_stand and place.arm not in found.table.references and not math.isnan(line["value"]):
            groups.setdefault(tuple(value for key, value in place.keys.items() if key != last), []).append(line)
    for rivals in groups.values():
        shown = [better * round(metric.scale * line["value"], metric.digits) for line in rivals]
        for line, value in zip(rivals, shown, strict=True):
            line["rank"] = 1 + sum(other > value for other in shown)
        # Where all are equal, nothing is best.
        marks = dict(zip(sorted({line["rank"] for line in rivals}), ("best", "second"), strict=False))
        for line in rivals:
            line["mark"] = marks.get(line["rank"], "") if len(marks) > 1 else ""


def correct(lines: Sequence[dict], p: str, corrected: str) -> None:
    """Set ``corrected`` of each line by Holm, over all of their ``p`` that are known; the others stay as they are."""
    tested = [line for line in lines if not math.isnan(line[p])]
    for line, value in zip(tested, holm([line[p] for line in tested]), strict=True):
        line[corrected] = value
