"""A table for a README or an issue."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from qig.report.tables.layout import Section, Text


def markdown(heading: str, caption: str, parts: Sequence[Section], notes: Sequence[str]) -> str:
    """The whole page: each section a pipe table, the notes below all of them."""
    text = [f"## {heading}", caption]
    for part in parts:
        text += [f"### {part.title[0].upper()}{part.title[1:]}", _table(part)]
    return "\n\n".join([*text, *notes]) + "\n"


def pipe(headers: Sequence[str], lines: Sequence[Sequence[str]], keys: int) -> str:
    """A pipe table, the first ``keys`` columns flush left."""
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    align = ["left" if index < keys else "right" for index in range(len(headers))]
    return tabulate(cells, [head.replace("|", "\\|") for head in headers], "pipe", disable_numparse=True,
                    colalign=align)


def _table(part: Section) -> str:
    headers = [*part.keys, *(f"{group}: {head}" if group else head for group, heads in part.groups for head in heads)]
    lines = []
    shown = None
    for index, (keys, cells) in enumerate(part.lines):
        first = keys[0] if len(keys) == 1 or index in part.blocks or shown is None else ""
        shown = keys[0]
        lines.append([first, *keys[1:], *map(_cell, cells)])
    return pipe(headers, lines, len(part.keys))


def _cell(cell: Text) -> str:
    text = {"best": "**{}**", "second": "<ins>{}</ins>"}.get(cell.mark, "{}").format(cell.text)
    text += "\\*" if cell.claim else ""
    text += "‡" if cell.doubtful else ""
    return f"{text} {cell.bounds}".rstrip()
