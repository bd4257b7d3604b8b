"""``qig-runs list [KEY=VALUE ...]``: the finished runs, newest last.

KEY is method, model, setting, or any key of the configuration (sensitivity.kind, calibration.samples); several must all
hold, and VALUE may be a pattern (model=tiny_*). The last column says what sets a run apart from most of those listed.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from tabulate import tabulate

from qig.errors import ConfigError, StoreError, choices
from qig.report.differing import differing, flatten
from qig.report.records import Run
from qig.runs.lookup import all_runs

WIDTH = 60  # characters of the column that says what sets a run apart


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("where", nargs="*", metavar="KEY=VALUE", help="only runs for which this holds")


def run(options: argparse.Namespace) -> int:
    runs, problems = all_runs(options.store)
    conditions = _conditions(options.where, runs)
    chosen = [one for one in runs if _holds(one, conditions)]
    chosen.sort(key=lambda one: str(one.record.get("created")))
    rows = [{**_row(one), "apart": apart} for one, apart in zip(chosen, _apart(chosen), strict=True)]
    if rows:
        print(tabulate(rows, headers="keys", disable_numparse=True))
    print(f"{len(rows)} of {len(runs)} runs in {options.store}")
    for key, value in conditions.items():
        there = sorted({_word(values(one)[key]) for one in runs if key in values(one)})
        if there and not any(_holds(one, {key: value}) for one in runs):
            print(f"  {choices(value, there, key)}")
    for problem in problems:
        print(f"  unreadable: {problem}")
    return 0


def values(one: Run) -> dict[str, Any]:
    """Every key that a run can be chosen by."""
    return {**flatten(one.config), "method": one.method, "model": one.model, "setting": one.setting}


def _conditions(words: list[str], runs: list[Run]) -> Mapping[str, str]:
    known = {key for one in runs for key in values(one)}
    conditions = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator:
            raise ConfigError(f"{word!r}: expected KEY=VALUE, such as method=qig")
        if runs and key not in known:
            raise StoreError(choices(key, known, "key"))
        conditions[key] = value
    return conditions


def _holds(one: Run, conditions: Mapping[str, str]) -> bool:
    found = values(one)
    return all(key in found and fnmatchcase(_word(found[key]), value) for key, value in conditions.items())


def _word(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(_word, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _apart(runs: Sequence[Run]) -> list[str]:
    """A run's values, as KEY=VALUE, of the keys that tell the runs apart; without those that most of the runs have."""
    told: list[list[str]] = [[] for _ in runs]
    for key, found in differing(runs).items():
        words = [_word(value) for value in found]
        usual, count = Counter(words).most_common(1)[0]
        for one, word in zip(told, words, strict=True):
            if word != "null" and (word != usual or 2 * count <= len(runs)):
                one.append(f"{key}={word}")
    return [_cut(" ".join(words)) for words in told]


def _cut(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"


def _row(one: Run) -> dict[str, str]:
    git = (one.record.get("environment") or {}).get("git") or {}
    metrics = one.record["metrics"]
    tasks = metrics.keys() - {one.corpus} or metrics.keys()  # as in tables (Run.combined)
    scores = [metrics[task]["accuracy"] for task in tasks if metrics[task].get("accuracy") is not None]
    return {
        "run": one.id,
        "created": str(one.record.get("created", ""))[:16],
        "model": one.model,
        "setting": one.setting,
        "method": one.method,
        "accuracy %": f"{100 * sum(scores) / len(scores):.1f}" if scores else "",
        "commit": str(git.get("commit") or "")[:8] + ("+" if git.get("dirty") else ""),
    }
