"""One self-contained page of a results folder: its tables, figures, files and run records."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, PackageLoader
from PIL import Image

from qig.errors import StoreError
from qig.report.figures.files import PICTURE, kind_of
from qig.report.figures.style import DPI
from qig.report.html.markdown import heading, render
from qig.report.tables.write import RECORDS
from qig.store.files import write_text

NAME = "report.html"
CSS_PIXELS = 140
"""Width on the screen of an inch in print, where text is larger."""
FILES = (".csv", ".tex", ".json", ".md")


@dataclass(frozen=True)
class Figure:
    """``image``: the PNG as a data address; ``width``: in CSS pixels. ``files``: kind to link of the figure's files."""

    name: str
    caption: str
    image: str
    width: int
    files: Mapping[str, str]


@dataclass(frozen=True)
class Record:
    """A run's record, and what the run was."""

    run: str
    title: str
    link: str


@dataclass(frozen=True)
class Section:
    """A folder's Markdown (as HTML), figures, other files and run records."""

    anchor: str
    title: str
    tables: list[str]
    figures: list[Figure]
    files: Mapping[str, str]
    records: list[Record]


def write_page(root: Path, target: Path | None = None) -> Path:
    """Write ``root/report.html`` (or ``target``) from what is in ``root`` and its folders; the same files, same bytes.

    Tables come from Markdown files, figures from PNG files, runs from ``records`` folders. Figures are embedded; links
    to records and data files are relative, so that the page works wherever the folder is.

    Raises:
        StoreError: there is no Markdown and no figure in ``root``.
    """
    target = target or root / NAME
    records = _records(root, target.parent)
    folders = [root, *sorted(path for path in root.rglob("*") if path.is_dir() and path.name != RECORDS)]
    sections = [section for folder in folders if (section := _section(folder, root, target.parent, records))]
    if not sections:
        raise StoreError(f"nothing to report in {root}: expected Markdown tables or figures there or in its folders")
    environment = Environment(loader=PackageLoader("qig.report.html", "."), autoescape=True, trim_blocks=True,
                              lstrip_blocks=True)
    text = environment.get_template("page.html.j2").render(sections=sections)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, text)
    return target


def _section(folder: Path, root: Path, base: Path, records: Mapping[str, Record]) -> Section | None:
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.md"))}
    images = sorted(path for path in folder.glob("*.png") if not path.name.endswith(PICTURE))
    if not texts and not images:
        return None
    links = {run: record.link for run, record in records.items()}
    tables = [render(text, lambda link: _link(folder / link, base), links) for text in texts.values()]
    drawn = {path.stem for path in images}
    files = {path.name: _link(path, base) for path in sorted(folder.iterdir())
             if path.suffix in FILES and path.stem not in drawn}
    name = folder.relative_to(root).as_posix()
    title = next(filter(None, map(heading, texts.values())), None) if len(texts) == 1 else None
    own = [records[run] for run in _runs(folder) if run in records]
    figures = [_figure(path, base) for path in images]
    shown = name if name != "." else "overview"
    return Section(shown.replace("/", "-"), f"{shown}: {title}" if title else shown, tables, figures, files, own)


def _figure(image: Path, base: Path) -> Figure:
    kind = kind_of(image)
    caption = (import_module(f"qig.report.figures.{kind}").__doc__ or "").splitlines()[0] if kind else image.stem
    siblings = {suffix[1:].upper(): _link(image.with_suffix(suffix), base) for suffix in (".pdf", ".png", ".csv")
                if image.with_suffix(suffix).is_file()}
    data = base64.b64encode(image.read_bytes()).decode()
    with Image.open(image) as opened:
        width = round(opened.width * CSS_PIXELS / DPI)
    return Figure(image.stem, caption, f"data:image/png;base64,{data}", width, siblings)


def _runs(folder: Path) -> list[str]:
    """The runs behind a folder: those of its own ``records``, and those that a sidecar in it names."""
    found = [record["id"] for record in _read(folder.glob(f"{RECORDS}/*.json")) if "id" in record]
    for sidecar in _read(folder.glob("*.json")):
        if isinstance(sidecar.get("runs"), dict):
            found += sidecar["runs"]
    return list(dict.fromkeys(found))


def _records(root: Path, base: Path) -> dict[str, Record]:
    """Id of a run to its record, for every record below ``root``."""
    found = {}
    for path in sorted(root.rglob(f"{RECORDS}/*.json")):
        record = next(iter(_read([path])), {})
        if {"id", "method", "config"} <= record.keys():
            config = record["config"]
            title = f"{record['method']}, {config['model']['name']}, {config['quant']['name']}"
            found[record["id"]] = Record(record["id"], title, _link(path, base))
    return found


def _read(paths: Iterable[Path]) -> list[dict]:
    values = []
    for path in sorted(paths):
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise StoreError(f"{path} is not JSON: {error}") from error
        values += [value] if isinstance(value, dict) else []
    return values


def _link(path: Path, base: Path) -> str:
    return quote(Path(os.path.relpath(path, base)).as_posix())
