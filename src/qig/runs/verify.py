"""``qig-runs verify [RUN ...]``: the checksums of all artefacts of a store, or of those that some runs refer to.

Exit status 1 if one does not match, or a run refers to one that is not there. Nothing is changed: the next qig command
that needs a damaged artefact sets it aside and makes it again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from qig.report.records import Run
from qig.runs.lookup import KINDS, all_runs, artefacts, check_store, find_run, stages
from qig.store import find_damage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="*", metavar="RUN", help="an id or its beginning (default: everything)")


def run(options: argparse.Namespace) -> int:
    check_store(options.store)
    if options.runs:
        runs = [find_run(name, options.store) for name in options.runs]
        folders = sorted({folder for one in runs for folder in _folders(one)})
        problems = {}
    else:
        runs, unreadable = all_runs(options.store)
        folders = [folder for kind in KINDS for folder in artefacts(options.store, kind)]
        problems = {text: "" for text in unreadable}
    absent = sorted({folder for one in runs for folder in _folders(one) if not folder.is_dir()})
    for folder in tqdm(folders, desc="verifying", unit="artefact", leave=False, disable=None):
        damage = find_damage(folder) if folder.is_dir() else None
        if damage is not None:
            problems[f"{folder.parent.name}/{folder.name}"] = damage
    problems |= {f"{folder.parent.name}/{folder.name}": "is not there" for folder in absent}
    for what, damage in problems.items():
        print(f"{what}{': ' if damage else ''}{damage}")
    print(f"{len(folders)} artefacts of {len(runs)} runs verified, {len(problems)} damaged or absent")
    return int(bool(problems))


def _folders(one: Run) -> list[Path]:
    return [one.store / kind / key for kind, key in {"runs": one.id, **stages(one)}.items()]
