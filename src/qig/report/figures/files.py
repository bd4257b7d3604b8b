"""A figure on disk: STEM.csv, what is drawn; STEM.pdf and STEM.png, drawn from it; one CSV, the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from qig.errors import StoreError
from qig.report.figures import KINDS
from qig.report.figures.style import DPI, styled
from qig.store.files import write_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PICTURE = ".input.png"
"""Suffix of the image that a figure is drawn over, where there is one."""


def kind_of(path: Path) -> str | None:
    """The kind of figure that a file belongs to: its name begins with it; None for any other file."""
    return next((kind for kind in KINDS if path.name.startswith((f"{kind}.", f"{kind}_"))), None)


def write(kind: str, frame: pd.DataFrame, folder: Path, suffix: str = "") -> list[Path]:
    """Write ``frame`` as ``folder/KIND_SUFFIX.csv`` and draw it; returns the paths of the CSV, PDF and PNG.

    ``frame.attrs["picture"]``, the image to draw over, is kept beside as KIND_SUFFIX.input.png.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / f"{kind}{'_' if suffix else ''}{suffix}.csv"
    if "picture" in frame.attrs:
        frame.attrs["picture"].save(table.with_suffix(PICTURE))
    write_text(table, frame.to_csv(index=False, float_format="%.6g"))
    return [table, *redraw(table)]


def slug(name: str) -> str:
    """Fit for a part of a file's name."""
    return "".join(letter if letter.isalnum() else "_" for letter in name.lower())


def redraw(table: Path, folder: Path | None = None) -> list[Path]:
    """Draw a figure's CSV once more, into its own folder or into ``folder``; returns the paths of the PDF and PNG."""
    with styled():
        figure = figure_of(table)
        written = [(folder or table.parent) / (table.stem + suffix) for suffix in (".pdf", ".png")]
        for target in written:
            # Without a date, equal data give equal files.
            figure.savefig(target, dpi=DPI, metadata={"CreationDate": None} if target.suffix == ".pdf" else None)
    return written


def figure_of(table: Path) -> Figure:
    """The figure that a CSV describes.

    Raises:
        StoreError: the file is not named after a kind of figure, or is no table of that kind.
    """
    import pandas as pd
    from PIL import Image

    kind = kind_of(table)
    if kind is None:
        raise StoreError(f"{table} is no figure's data: its name begins with none of {', '.join(KINDS)}")
    module = import_module(f"qig.report.figures.{kind}")
    # Identities such as 12e4567890123456 are no numbers.
    frame = pd.read_csv(table, dtype={"run": str})
    missing = [column for column in module.COLUMNS if column not in frame]
    if missing:
        raise StoreError(f"{table} is no data of a figure of kind {kind}: it lacks {', '.join(missing)}")
    picture = table.with_suffix(PICTURE)
    return module.draw(frame, Image.open(picture)) if picture.is_file() else module.draw(frame)


def figure_tables(folder: Path) -> Iterator[Path]:
    """The CSV of every figure below ``folder``, in alphabetical order."""
    return (path for path in sorted(folder.rglob("*.csv")) if kind_of(path) and path.with_suffix(".png").is_file())
