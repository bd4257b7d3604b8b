"""Published numbers beside the cells of an experiment, in columns of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from qig.experiment.gather import Found
from qig.experiment.spec import Published
from qig.report.published.consistency import averaged_over
from qig.report.published.numbers import NO_BENCHMARK, TITLES, Number, counterpart
from qig.report.records import Run
from qig.report.tables.places import Place, places

if TYPE_CHECKING:
    import pandas as pd


def beside(published: Published, place: Place, name: str, first: str) -> dict[str, Number]:
    """Published metric to the printed number that stands beside a cell's metric ``name``; ``first``: the table's first.

    Beside the paper's own model the quantities are the same: a benchmark's number beside our accuracy on it, an average
    beside our accuracy over the same benchmarks, costs beside the first metric. Beside a stand-in all of the table's
    metrics stand at the first one, for the order of the rows alone.
    """
    run = place.runs[0]
    if _stands_in(published, run):
        wanted = published.metrics if name == first else []
    else:
        wanted = [metric for metric in published.metrics if metric in NO_BENCHMARK and name == first]
        title, _, task = name.partition(".")
        tasks = {task} & run.by_task.keys() if task else set(run.combined)
        if title == "accuracy":
            wanted += tasks if len(tasks) == 1 else ()
            wanted += [metric for metric in published.metrics if metric == "average" and not task]
    found = {metric: _number(published, place, metric) for metric in wanted}
    return {metric: number for metric, number in found.items() if number is not None
            and (metric != "average" or _stands_in(published, run) or set(averaged_over(number)) == tasks)}


def left_out(found: Found) -> list[str]:
    """What of the table's published metrics stands nowhere since something else was evaluated; with the reason."""
    published, said = found.table.published, {}
    for place in places(found):
        run = place.runs[0]
        if _stands_in(published, run):
            continue
        for metric in published.metrics:
            number = _number(published, place, metric)
            if number is None or metric in NO_BENCHMARK:
                continue
            if metric != "average":
                if metric not in run.by_task:
                    said[f"{_title(metric)}, which was not evaluated here"] = None
            elif set(tasks := averaged_over(number)) != set(run.combined):
                over = f"is over {_titles(tasks)}" if tasks else "is over benchmarks that are not known"
                said[f"the average, which {over}, beside {_titles(run.combined)} here"] = None
    return list(said)


def with_published(found: Found, frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with ``published_METRIC`` as printed at the lines that it stands beside, and ``published_source``.

    Without a published counterpart the frame is returned as it is.
    """
    published = found.table.published
    if published is None:
        return frame
    frame = frame.copy()
    names = list(dict.fromkeys(frame["metric"]))
    made = places(found)
    lines = [(place, beside(published, place, name, names[0])) for name in names for place in made]
    for metric in ordered(published, (numbers for _, numbers in lines)):
        frame[f"published_{metric}"] = [numbers[metric].value if metric in numbers else None for _, numbers in lines]
    frame["published_source"] = [f"{published.reported_by} {published.table}, {_theirs(published, place.runs[0])}"
                                 if numbers else None for place, numbers in lines]
    return frame


def ordered(published: Published, found: Iterable[Mapping[str, Number]]) -> list[str]:
    """The published metrics: those that the table names, then others that were found."""
    return list(dict.fromkeys([*published.metrics, *(metric for numbers in found for metric in numbers)]))


def _number(published: Published, place: Place, metric: str) -> Number | None:
    run = place.runs[0]
    return counterpart(published, place.arm, run.model, run.setting, metric, place.keys)


def _theirs(published: Published, run: Run) -> str:
    return published.models.get(run.model, run.model)


def _stands_in(published: Published, run: Run) -> bool:
    return _theirs(published, run) != run.model


def _titles(tasks: Iterable[str]) -> str:
    return ", ".join(map(_title, tasks))


def _title(metric: str) -> str:
    return TITLES.get(metric, metric)
