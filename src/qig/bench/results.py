"""A benchmark on disk: NAME.json with everything and the machine, NAME.md as a table, NAME.png and .pdf as a figure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from qig.environment import environment
from qig.report.figures.style import DPI, styled
from qig.store import write_json
from qig.store.files import write_text


def write(
    folder: Path,
    command: str,
    name: str,
    title: str,
    about: str,
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    device: torch.device,
    raw: Any = None,
    draw=None,
) -> str:
    """Write the files and return the Markdown.

    Args:
        command: as it was typed, for the JSON.
        about: what was measured, in a sentence or more.
        rows: of the table; ``columns``: their keys and titles (none: the key), with a format behind a colon.
        raw: single measurements, for the JSON.
        draw: makes a matplotlib figure of the rows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    machine = environment(device)
    cpu = machine["cpu"]
    where = machine["device"] if device.type == "cuda" else f"{cpu['model']}, {cpu['threads']} of {cpu['cores']} cores"
    body = [[_cell(row.get(key), form) for key, (_, form) in _parsed(columns)] for row in rows]
    table = tabulate(body, [title for _, (title, _) in _parsed(columns)], tablefmt="pipe", disable_numparse=True)
    text = f"# {title}\n\n{about}\n\n{table}\n\n{where}; versions, commit and single measurements in {name}.json.\n"
    found = {"command": command, "rows": rows, "raw": raw, **machine}
    write_json(folder / f"{name}.json", json.loads(json.dumps(found, default=str)))
    write_text(folder / f"{name}.md", text)
    if draw is not None:
        with styled():
            figure = draw(rows)
            for suffix in (".pdf", ".png"):
                metadata = {"CreationDate": None} if suffix == ".pdf" else None
                figure.savefig(folder / f"{name}{suffix}", dpi=DPI, metadata=metadata)
    return text


def _parsed(columns: Mapping[str, str]) -> list[tuple[str, tuple[str, str]]]:
    return [(key, (title.partition(":")[0] or key, title.partition(":")[2])) for key, title in columns.items()]


def _cell(value: Any, form: str) -> str:
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items() if item is not None) or "–"
    return format(value, form) if form and isinstance(value, (int, float)) else str(value)
