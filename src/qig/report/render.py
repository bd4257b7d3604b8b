"""Comparisons as people read them: terminal tables, Markdown, and CSV with every digit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qig.report.cells import METHODS, accuracy, byte_size, count, difference, plain, seconds
from qig.report.records import PASSAGES
from qig.store.files import write_text

if TYPE_CHECKING:
    import pandas as pd

BASELINE_TITLES = {"16bit": "16 bit", "rtn": "RTN"}
INTERVALS = (
    "Brackets are 95% intervals from a bootstrap over {clusters} (all {samples} of {one} are drawn together); "
    "differences are paired by sample; those of accuracy are in points. {p}NLL is in nats, lower is better.")
OF_A_TOKEN = "Of text it is that of a token, and exp of it the perplexity."
P = "p is McNemar's exact test, which takes {samples} as independent. "
OUTLIERS = ("† synthetic, function-preserving outliers were put into this model (model.outliers.sigma = {sigma}); "
            "the model without them computes the same function.")

Section = tuple[str, list[str], list[list[str]]]
"""Title, headers, rows of cells."""


def terminal(frame: pd.DataFrame, types: pd.DataFrame | None = None, *, width: int = 160) -> str:
    """The closing tables as text, no line longer than ``width`` characters; ``frame`` comes from ``comparison``."""
    import textwrap

    lines = [_caption(frame), ""]
    for title, headers, rows in _sections(frame, types):
        for part_headers, part_rows in _split(headers, rows, _key_count(frame), width):
            lines += [title, _table(part_headers, part_rows, _key_count(frame), "simple"), ""]
    for note in notes(frame):
        lines += textwrap.wrap(note, width)
    return "\n".join(lines)


def markdown(frame: pd.DataFrame, types: pd.DataFrame | None = None) -> str:
    """The same tables for a README or an issue."""
    parts = [f"**{_caption(frame)}**"]
    for title, headers, rows in _sections(frame, types):
        cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
        parts += [f"### {title}", _table(headers, cells, _key_count(frame), "pipe")]
    return "\n\n".join([*parts, *notes(frame)]) + "\n"


def write(frame: pd.DataFrame, types: pd.DataFrame, folder: Path) -> list[Path]:
    """Write ``comparison.csv``, ``by_type.csv`` and ``comparison.md`` into ``folder``, each whole or not at all."""
    contents = {"comparison.csv": frame.to_csv(index=False), "by_type.csv": types.to_csv(index=False),
                "comparison.md": markdown(frame, types)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        write_text(folder / name, text)
    return [folder / name for name in contents]


def notes(frame: pd.DataFrame) -> list[str]:
    """The footnotes: what the brackets are, whether questions were left out, which models carry synthetic outliers."""
    sigmas = sorted({sigma for sigma in frame["model.outliers.sigma"] if sigma > 0})
    said = frame.attrs["nouns"]._asdict()
    p = P.format(**said) if any(_has_p(frame, name) for name in BASELINE_TITLES) else ""
    intervals = INTERVALS.format(p=p, **said)
    if frame.attrs["nouns"] == PASSAGES:
        intervals = f"{intervals} {OF_A_TOKEN}"
    cut = frame.attrs.get("limited")
    return ([intervals] + ([f"Evaluated: {cut}."] if cut else [])
            + ([OUTLIERS.format(sigma=", ".join(f"{sigma:g}" for sigma in sigmas))] if sigmas else []))


def _caption(frame: pd.DataFrame) -> str:
    """What all rows share, so that no column has to say it."""
    shared = [_key(frame, name)[-1] for name in ("model", "setting") if not _varies(frame, name)]
    many = f"{len(frame)} runs" if len(frame) > 1 else "1 run"
    return " · ".join([*shared, many])


def _varies(frame: pd.DataFrame, name: str) -> bool:
    """Whether the runs differ in it; the setting of a 16-bit model says no more than its method does."""
    quantized = frame[frame["method"] != "none"]
    return (quantized if name == "setting" and len(quantized) else frame)[name].nunique() > 1


def _key_names(frame: pd.DataFrame) -> list[str]:
    return ["method", *(name for name in ("model", "setting") if _varies(frame, name)), *frame.attrs.get("config", [])]


def _key_count(frame: pd.DataFrame) -> int:
    return len(_key_names(frame))


def _key(frame: pd.DataFrame, name: str) -> list[str]:
    if name == "model":
        return [f"{model}†" if sigma > 0 else str(model)
                for model, sigma in zip(frame["model"], frame["model.outliers.sigma"], strict=True)]
    if name == "method":
        return [METHODS.get(method, method) for method in frame["method"]]
    return [plain(value) for value in frame[name]]


def _has_p(frame: pd.DataFrame, name: str) -> bool:
    """Whether a test goes with the differences to this baseline: over several tasks there is none."""
    return len(frame.attrs.get("tasks", [])) < 2 or bool(frame[f"vs_{name}_p"].notna().any())


def _sections(frame: pd.DataFrame, types: pd.DataFrame | None) -> list[Section]:
    tasks = frame.attrs.get("tasks", [])
    names = _key_names(frame)
    keys = {name: _key(frame, name) for name in names}
    mean = "accuracy %" if len(tasks) < 2 else f"mean accuracy % ({len(tasks)} tasks)"
    columns = {mean: _cells(frame, "accuracy", accuracy)}
    for name, title in BASELINE_TITLES.items():
        columns[f"vs {title}"] = _cells(frame, f"vs_{name}", lambda *v: difference(*v, scale=100, digits=1))
        if _has_p(frame, name):
            columns[f"p ({title})"] = [plain(value, 3) for value in frame[f"vs_{name}_p"]]
    sections = [_section("Accuracy", keys, columns)]
    if len(tasks) > 1:
        by_task = {task: _cells(frame, f"accuracy.{task}", accuracy) for task in tasks}
        sections.append(_section("Accuracy by task, %", keys, by_task))
    columns = {"NLL": _cells(frame, "nll", lambda value, low, high: plain(value, 3))}
    for name, title in BASELINE_TITLES.items():
        columns[f"NLL vs {title}"] = _cells(frame, f"nll_vs_{name}", lambda *v: difference(*v, scale=1, digits=3))
    sections.append(_section("Negative log-likelihood", keys, columns))
    columns = {"calibration": [seconds(value) for value in frame["calibration_seconds"]],
                "evaluation": [seconds(value) for value in frame["evaluation_seconds"]],
                "peak host": [byte_size(value) for value in frame["peak_host_bytes"]],
                "peak device": [byte_size(value) for value in frame["peak_device_bytes"]],
                "model": [byte_size(value) for value in frame["model_bytes"]],
                "samples": [count(value) for value in frame["samples"]],
                "run": [str(value)[:10] for value in frame["run"]]}
    sections.append(_section("Cost", keys, columns))
    if types is not None and not types.empty:
        sections.append(_section("Accuracy by question type, %", keys, _type_columns(frame, types)))
    return sections


def _type_columns(frame: pd.DataFrame, types: pd.DataFrame) -> dict[str, list[str]]:
    several = types["task"].nunique() > 1
    columns = {}
    for (task, kind), part in types.groupby(["task", "type"], sort=False):
        values = dict(zip(part["run"], part["accuracy"], strict=True))
        title = f"{task}: {kind}" if several else str(kind)
        columns[title] = [accuracy(values[run]) if run in values else plain(None) for run in frame["run"]]
    return columns


def _cells(frame: pd.DataFrame, name: str, style: Callable[..., str]) -> list[str]:
    return [style(*values) for values in frame[[name, f"{name}_low", f"{name}_high"]].itertuples(index=False)]


def _section(title: str, keys: dict[str, list[str]], columns: dict[str, list[str]]) -> Section:
    """Columns without a single value (no device, no RTN run) are left out."""
    kept = {name: cells for name, cells in columns.items() if any(cell != plain(None) for cell in cells)}
    every = [*keys.items(), *kept.items()]
    return title, [name for name, _ in every], [list(row) for row in zip(*(cells for _, cells in every), strict=True)]


def _split(headers: Sequence[str], rows: Sequence[Sequence[str]], keys: int, width: int):
    """Parts of a table that each fit ``width``; every part repeats the key columns, shortened if need be."""
    widest = max(8, (width // 2) // keys - 2)
    columns = [[header, *(row[i] for row in rows)] for i, header in enumerate(headers)]
    columns[:keys] = [[_shorten(cell, widest) for cell in column] for column in columns[:keys]]
    # tabulate pads headers by two and puts two spaces between columns.
    sizes = [max(len(column[0]) + 2, *(len(cell) for cell in column)) + 2 for column in columns]
    part, used = list(range(keys)), sum(sizes[:keys])
    for index in range(keys, len(columns)):
        if len(part) > keys and used + sizes[index] > width:
            yield _transpose(columns, part)
            part, used = list(range(keys)), sum(sizes[:keys])
        part.append(index)
        used += sizes[index]
    yield _transpose(columns, part)


def _transpose(columns: Sequence[Sequence[str]], part: Sequence[int]) -> tuple[list[str], list[list[str]]]:
    chosen = [columns[index] for index in part]
    return [column[0] for column in chosen], [list(row) for row in zip(*(c[1:] for c in chosen), strict=True)]


def _shorten(text: str, size: int) -> str:
    return text if len(text) <= size else f"{text[:size // 2]}…{text[-(size - size // 2 - 1):]}"


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]], keys: int, style: str) -> str:
    from tabulate import tabulate

    align = ["left" if index < keys else "right" for index in range(len(headers))]
    return tabulate(rows, headers, tablefmt=style, disable_numparse=True, colalign=align)
