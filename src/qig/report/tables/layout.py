"""The cells of an experiment as a reader's table: sections of lines and grouped columns, not yet in any markup."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qig.experiment.gather import Found
from qig.experiment.spec import Table
from qig.report.cells import DASH, signed
from qig.report.metrics import Metric, metric_of
from qig.report.published.numbers import TITLES
from qig.report.tables.places import Place, places
from qig.report.tables.printed import beside, ordered

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Text:
    """``mark``: ``best``, ``second`` or nothing. ``claim``: significant after Holm. ``doubtful``: see the notes."""

    text: str
    mark: str = ""
    bounds: str = ""
    claim: bool = False
    doubtful: bool = False


@dataclass(frozen=True)
class Section:
    """``groups``: title and headers of columns that belong together; ``lines``: the key cells, then all others.

    ``blocks``: at which lines a new block begins, where the first row key changes.
    """

    title: str
    keys: list[str]
    groups: list[tuple[str, list[str]]]
    lines: list[tuple[list[str], list[Text]]]
    blocks: list[int]


EMPTY = Text(DASH)


def sections(found: Found, frame: pd.DataFrame) -> list[Section]:
    """One section a metric of samples, and one for all numbers of the runs as wholes."""
    names = list(dict.fromkeys(frame["metric"]))
    sampled = [name for name in names if metric_of(name).field]
    whole = [name for name in names if not metric_of(name).field]
    made = [_section(found, frame, title(name), [name], names[0]) for name in sampled]
    if whole:
        made.append(_section(found, frame, "Of the whole run", whole, names[0]))
    return made


def title(name: str) -> str:
    """``accuracy, %``; with the benchmark where it is one of several."""
    metric, task = metric_of(name), name.partition(".")[2]
    return metric.title + (f" on {task}" if task else "") + (f", {metric.unit}" if metric.unit else "")


def _section(found: Found, frame: pd.DataFrame, heading: str, names: list[str], first: str) -> Section:
    table = found.table
    lines = {(tuple(line[key] for key in (*table.rows, *table.columns)), line["metric"]): line
             for line in frame.to_dict("records")}
    made = places(found)
    across = _labelled(table, dict.fromkeys(tuple(place.keys[key] for key in table.columns) for place in made))
    down = _grouped(list(dict.fromkeys(tuple(place.keys[key] for key in table.rows) for place in made)))
    by_key = {tuple(place.keys.values()): place for place in made}
    wide = [_columns(found, names, lines, down, column) for column in across]
    printed = [_printed(found, by_key, down, column, names[0], first) for column in across if table.published]
    groups, cells = [], [[] for _ in down]
    for heads, columns in (*wide, *printed):
        kept = [index for index in range(len(heads[1])) if any(column[index] != EMPTY for column in columns)]
        if kept:
            groups.append((heads[0], [heads[1][index] for index in kept]))
            for line, column in zip(cells, columns, strict=True):
                line += [column[index] for index in kept]
    keys = [[table.label(key, value) for key, value in zip(table.rows, line, strict=True)] for line in down]
    blocks = [index for index in range(1, len(down)) if len(table.rows) > 1 and down[index][0] != down[index - 1][0]]
    return Section(heading, [key.rpartition(".")[2] for key in table.rows], groups,
                   list(zip(keys, cells, strict=True)), blocks)


def _labelled(table: Table, columns: Iterable[tuple]) -> list[tuple]:
    """Columns in the order of the labels of their keys; without labels, as they come."""
    orders = [list(table.labels.get(key, ())) for key in table.columns]
    return sorted(columns, key=lambda column: [order.index(value) if value in order else len(order)
                                               for order, value in zip(orders, column, strict=True)])


def _grouped(lines: list[tuple]) -> list[tuple]:
    """In the order of first appearance, but lines that share their first keys together."""
    order = [list(dict.fromkeys(column)) for column in zip(*lines, strict=True)]
    fixed = len(order) - 1
    return sorted(lines, key=lambda line: [values.index(value) for values, value in zip(order[:fixed], line[:fixed],
                                                                                        strict=True)])


def _columns(found: Found, names: list[str], lines: dict, down: list[tuple], column: tuple):
    """Heads and cells of one combination of the column keys: each metric, and its differences to the controls."""
    heads, cells = [], [[] for _ in down]
    for name in names:
        metric = metric_of(name)
        heads.append(metric.title if metric.field else title(name))
        for row, out in zip(down, cells, strict=True):
            out.append(_value(metric, lines.get(((*row, *column), name))))
        for control in found.table.controls if metric.field else ():
            heads.append(f"vs {found.table.label('arm', control)}")
            for row, out in zip(down, cells, strict=True):
                out.append(_difference(metric, lines.get(((*row, *column), name)), f"vs_{control}"))
    return (_heading(found, column), heads), cells


def _heading(found: Found, column: tuple) -> str:
    return ", ".join(found.table.label(key, value) for key, value in zip(found.table.columns, column, strict=True))


def _value(metric: Metric, line: dict[str, Any] | None) -> Text:
    if line is None or math.isnan(line["value"]):
        return EMPTY
    return Text(f"{metric.scale * line['value']:.{metric.digits}f}", line["mark"])


def _difference(metric: Metric, line: dict[str, Any] | None, name: str) -> Text:
    if line is None or math.isnan(line[name]):
        return EMPTY
    value, low, high = (metric.scale * line[f"{name}{end}"] for end in ("", "_low", "_high"))
    bounds = "" if math.isnan(low) else f"[{signed(low, metric.digits)}, {signed(high, metric.digits)}]"
    return Text(signed(value, metric.digits), bounds=bounds, claim=line[f"{name}_holm"] < 0.05)


def _printed(found: Found, by_key: dict[tuple, Place], down: list[tuple], column: tuple, name: str, first: str):
    """Heads and cells of what is published beside the metric ``name``, at one combination of the column keys."""
    rows = [beside(found.table.published, by_key[key], name, first) if (key := (*row, *column)) in by_key else {}
            for row in down]
    metrics = ordered(found.table.published, rows)
    cells = [[Text(numbers[metric].value, doubtful=numbers[metric].doubtful) if metric in numbers else EMPTY
              for metric in metrics] for numbers in rows]
    place = _heading(found, column)
    heads = [TITLES.get(metric, metric) for metric in metrics]
    return ("published" + (f", {place}" if place else ""), heads), cells
