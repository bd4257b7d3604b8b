"""``qig-runs compare A B``: what two runs differ in: configuration, stages, results with paired intervals, costs."""

from __future__ import annotations

import argparse
import math
from typing import Any

from tabulate import tabulate

from qig.errors import ConfigError
from qig.report.comparison import Compared, check_paired, comparison
from qig.report.differing import flatten
from qig.report.records import Run
from qig.runs.lookup import find_run

SHOWN = {"accuracy": (100, "accuracy, points"), "nll": (1, "NLL, nats")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for name in ("a", "b"):
        parser.add_argument(name, metavar=name.upper(), help="an id, its beginning, or the output folder of a job")


def run(options: argparse.Namespace) -> int:
    first, second = (find_run(name, options.store) for name in (options.a, options.b))
    if first.id == second.id:
        raise ConfigError(f"{options.a} and {options.b} are one run, {first.id}: expected two")
    print(tabulate(_rows(first, second), headers=("", first.id[:10], second.id[:10]), disable_numparse=True))
    print()
    check_paired(first, second)
    titles = ("", first.id[:10], second.id[:10], "second - first", "95%", "p")
    print(tabulate(_differences(first, second), headers=titles, disable_numparse=True))
    return 0


def _rows(first: Run, second: Run) -> list[tuple[str, Any, Any]]:
    """What the records say of each run, where it is not the same."""
    found = []
    for part in ("method", "config", "stages", "checkpoint", "data", "environment", "determinism", "versions"):
        sides = [flatten({part: one.record.get(part)}) for one in (first, second)]
        for key in dict.fromkeys(key for side in sides for key in side):
            values = [side.get(key, "–") for side in sides]
            if values[0] != values[1]:
                found.append((key, *map(_short, values)))
    return found


def _short(value: Any) -> str:
    text = f"{len(value)} of them" if isinstance(value, list) and len(value) > 8 else str(value)
    return text if len(text) <= 40 else text[:39] + "…"


def _differences(first: Run, second: Run) -> list[tuple[str, ...]]:
    """The second run against the first as its control, by the statistics of the closing table."""
    row = comparison([Compared(second, sixteen_bit=first)]).iloc[0]
    own = comparison([Compared(first)]).iloc[0]
    found = []
    for name, (scale, title) in SHOWN.items():
        against = "vs_16bit" if name == "accuracy" else "nll_vs_16bit"
        mean, low, high = (scale * row[f"{against}{end}"] for end in ("", "_low", "_high"))
        if math.isnan(mean):
            continue
        p = row["vs_16bit_p"] if name == "accuracy" else math.nan
        interval = "" if math.isnan(low) else f"[{low:+.4g}, {high:+.4g}]"
        sides = (f"{scale * own[name]:.4g}", f"{scale * row[name]:.4g}")
        found.append((title, *sides, f"{mean:+.4g}", interval, "" if math.isnan(p) else f"{p:.3g}"))
    return found
