"""An experiment's folder in ``results/``: CSV, Markdown, LaTeX, and a sidecar that leads from each number to its runs.

The same store gives the same bytes. The records of all runs stand beside the experiments, in ``records/``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from qig.experiment.gather import Found
from qig.experiment.jobs import is_of_sweep, is_telling
from qig.report.figures.experiment import write_experiment_figures
from qig.report.records import Run
from qig.report.tables.cells import cells
from qig.report.tables.latex import latex
from qig.report.tables.layout import sections
from qig.report.tables.markdown import markdown
from qig.report.tables.notes import notes
from qig.report.tables.printed import with_published
from qig.report.tables.winners import winners
from qig.store.files import write_text

if TYPE_CHECKING:
    import pandas as pd

RECORDS = "records"


def write_experiment(found: Found, root: Path) -> list[Path]:
    """Write ``root/FOLDER/NAME.{csv,md,tex,json}``, ``NAME_winners.csv``, figures, and ``root/records/RUN.json``.

    Returns the files of the folder. FOLDER is the experiment's name, with the overrides if there were any.
    """
    frame = cells(found)
    duels = winners(found, frame)
    parts = sections(found, frame)
    below = notes(found, frame, parts, duels)
    table, name = found.table, found.name
    contents = {
        f"{name}.csv": with_published(found, frame).to_csv(index=False),
        f"{name}_winners.csv": duels.to_csv(index=False),
        f"{name}.md": markdown(table.title, table.caption, parts, below),
        f"{name}.tex": latex(table.title, table.caption, parts, below),
    }
    records = {run.id: _record(run) for run in sorted((row.run for row in found.rows), key=lambda run: run.id)}
    contents[f"{name}.json"] = json.dumps(sidecar(found, frame, duels, records, contents), indent=1) + "\n"
    folder = root / folder_name(found)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".lock"):  # what is no longer named must not be what another table is about to name
        for file, text in contents.items():
            write_text(folder / file, text)
        _keep(root, records)
    arms = [(row.arm, row.run) for row in found.rows]
    drawn = write_experiment_figures(frame, arms, found.table, folder, found.figures)
    return [*(folder / file for file in contents), *drawn]


def sidecar(found: Found, frame: pd.DataFrame, duels: pd.DataFrame, records: Mapping[str, bytes],
            contents: Mapping[str, str]) -> dict[str, Any]:
    """Each line of the two CSV files with the runs behind it; each run with its stages and its record's SHA-256."""
    runs = {row.run.id: row.run for row in found.rows}
    return {
        "experiment": found.name,
        "overrides": list(found.overrides),
        "command": " ".join(["qig-report", found.name, *found.overrides,
                             *(["--from", *found.sweeps] if found.sweeps else [])]),
        "cells": [_trace(line, found) for line in frame.to_dict("records")],
        "winners": [_trace(line, found) for line in duels.to_dict("records")],
        "runs": {name: _about(runs[name], record) for name, record in records.items()},
        "files": {file: hashlib.sha256(text.encode()).hexdigest() for file, text in contents.items()},
    }


def folder_name(found: Found) -> str:
    """``table5_gptq``, or with overrides that can change a result or the table ``table5_gptq_model=tiny_internvl``."""
    telling = [word for word in found.overrides if is_telling(word) or is_of_sweep(word)]
    letters = "".join(letter if letter.isalnum() or letter in "=._-,+" else "-"
                      for letter in "_".join([found.name, *telling]))
    return letters if len(letters) <= 120 else f"{letters[:100]}-{hashlib.sha256(letters.encode()).hexdigest()[:16]}"


def _trace(line: Mapping[str, Any], found: Found) -> dict[str, Any]:
    keys = [*found.table.rows, *found.table.columns, "metric", "best", "second"]
    runs = {column: value.split() for column, value in line.items() if column == "runs" or column.endswith("_runs")}
    return {key: line[key] for key in keys if key in line} | {name: ids for name, ids in runs.items() if ids}


def _about(run: Run, record: bytes) -> dict[str, Any]:
    stages = run.record["stages"]
    return {"record_sha256": hashlib.sha256(record).hexdigest(), "quantized": stages["quantized"],
            "evaluation": stages["evaluation"], "git": (run.record.get("environment") or {}).get("git")}


def _record(run: Run) -> bytes:
    return (run.store / "runs" / run.id / "record.json").read_bytes()


def _keep(root: Path, records: Mapping[str, bytes]) -> None:
    """Copy the records, and remove those that no sidecar below ``root`` names any more."""
    folder = root / RECORDS
    folder.mkdir(parents=True, exist_ok=True)
    for name, record in records.items():
        write_text(folder / f"{name}.json", record.decode())
    named = {name for file in root.glob("*/*.json") if file.parent != folder
             for name in _named(json.loads(file.read_text(encoding="utf-8")))}
    for file in folder.glob("*.json"):
        if file.stem not in named:
            file.unlink()


def _named(value: Any) -> list[str]:
    """The runs of a sidecar; other files have none."""
    runs = value.get("runs") if isinstance(value, dict) and "experiment" in value else None
    return list(runs) if isinstance(runs, dict) else []
