"""``results/published_consistency``: what the printed numbers contradict, as CSV, Markdown and LaTeX."""

from __future__ import annotations

from pathlib import Path

from qig.report.published.consistency import ITEMS, published_consistency
from qig.report.tables.latex import latex
from qig.report.tables.layout import Section, Text
from qig.report.tables.markdown import markdown
from qig.store.files import write_text

NAME = "published_consistency"
TITLE = "Published numbers that do not fit each other"
CAPTION = ("Averages that are not those of their rows' cells, by more than rounding or cutting off explains; "
           "accuracies that no whole number of right answers gives; cells that another table contradicts.")


def write_consistency(root: Path) -> list[Path]:
    """Write ``root/published_consistency/published_consistency.{csv,md,tex}``; returns the files."""
    frame = published_consistency()
    tested = frame.attrs["tested"]
    counts = {"average": "row averages", "count": "accuracies"}
    found = frame.groupby(["check", "reported_by"]).size()
    counted = ", ".join(f"{found.get((check, source), 0)} of {number} {counts[check]} in {source}"
                        for (check, source), number in tested.items())
    items = ", ".join(f"{name} {count:,}" for name, count in ITEMS.items())
    below = [f"Contradictions: {counted}.", f"Number of items: {items}.",
             "Nothing here was measured by this project. Some sources are known from transcriptions by others and were "
             "not checked against the printed page (QIG's, SplitQ's, VLMQ's): a slip may be theirs."]
    columns = ["table", "model", "setting", "method", "variant", "metric", "printed", "expected"]
    where = frame.assign(table=frame["reported_by"] + " " + frame["table"])
    part = Section("contradictions", ["check"], [("", columns)], [
        ([line["check"]], [Text(line[name] or "–") for name in columns]) for line in where.to_dict("records")], [])
    contents = {"csv": frame.to_csv(index=False), "md": markdown(TITLE, CAPTION, [part], below),
                "tex": latex(TITLE, CAPTION, [part], below)}
    folder = root / NAME
    folder.mkdir(parents=True, exist_ok=True)
    for ending, text in contents.items():
        write_text(folder / f"{NAME}.{ending}", text)
    return [folder / f"{NAME}.{ending}" for ending in contents]
