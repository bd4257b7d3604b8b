"""``results/published_consistency``: what the printed numbers contradict, as CSV, Markdown and LaTeX."""

from __future__ import annotations

from pathlib import Path

from qig.report.published.consistency import ITEMS, published_consistency
from qig.report.render import write_atomically
from qig.report.tables.latex import latex
from qig.report.tables.layout import Section, Text
from qig.report.tables.markdown import markdown

NAME = "published_consistency"
TITLE = "Printed numbers that contradict themselves"
CAPTION = ("Averages that are not those of their rows' cells, by more than rounding explains, and accuracies that no "
           "whole number of right answers gives.")


def write_consistency(root: Path) -> list[Path]:
    """Write ``root/published_consistency/published_consistency.{csv,md,tex}``; returns the files."""
    frame = published_consistency()
    tested = frame.attrs["tested"]
    counts = {"average": "row averages", "count": "accuracies"}
    found = frame.groupby(["check", "reported_by"]).size()
    lines = ", ".join(f"{found.get(key, 0)} of {number} {counts[key[0]]} in {key[1]}" for key, number in tested.items())
    items = ", ".join(f"{name} {count:,}" for name, count in ITEMS.items())
    below = [f"Contradictions: {lines}.", f"Number of items: {items}.",
             "All numbers as printed in the papers; nothing here was measured by this project."]
    columns = ["model", "setting", "method", "variant", "metric", "printed", "expected"]
    part = Section("contradictions", ["check", "table"], [("", columns)], [
        ([line["check"], f"{line['reported_by']} {line['table']}"], [Text(line[name] or "–") for name in columns])
        for line in frame.to_dict("records")], [])  # fmt: skip
    contents = {"csv": frame.to_csv(index=False), "md": markdown(TITLE, CAPTION, [part], below),
                "tex": latex(TITLE, CAPTION, [part], below)}
    folder = root / NAME
    folder.mkdir(parents=True, exist_ok=True)
    for ending, text in contents.items():
        write_atomically(folder / f"{NAME}.{ending}", text)
    return [folder / f"{NAME}.{ending}" for ending in contents]
