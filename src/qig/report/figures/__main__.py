"""``python -m qig.report.figures``: draw the figures of finished runs, or draw them again from their CSV files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from qig.commands import told
from qig.errors import StoreError
from qig.report.figures import OF_RUN, OF_SAMPLE, OF_SWEEP
from qig.report.jobs import RUN_FILE, compared, read_jobs


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 after a message about what cannot be drawn."""
    options = _parser().parse_args(arguments)
    redraws = options.command == "redraw"
    return told("qig.report.figures", lambda: _redraw(options.folder) if redraws else _draw(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m qig.report.figures", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    draw = commands.add_parser("draw", help="the figures of a run or a sweep")
    draw.add_argument("folder", type=Path, help="output folder of a run or a sweep")
    draw.add_argument("--to", type=Path, required=True, help="folder to write a CSV, PDF and PNG of each figure into")
    draw.add_argument("--kinds", nargs="+", choices=(*OF_SAMPLE, *OF_RUN, *OF_SWEEP), metavar="KIND",
                      help=f"only these of {', '.join((*OF_SAMPLE, *OF_RUN, *OF_SWEEP))} (default: all possible ones)")
    draw.add_argument("--runs", type=int, default=1, help="figures of single runs for at most so many (default: 1)")
    draw.add_argument("--sample", type=int, default=0, help="which calibration sample to show (default: 0)")
    redraw = commands.add_parser("redraw", help="every figure below a folder once more, from the CSV beside it")
    redraw.add_argument("folder", type=Path)
    return parser


def _draw(options: argparse.Namespace) -> int:
    rows, problems = compared(read_jobs(options.folder))
    if problems or not rows:
        raise StoreError("; ".join(problems) or f"no run below {options.folder}: expected {RUN_FILE} there or in its "
                         "subfolders")
    from qig.report.figures.collect import write_all

    written, missing = write_all(rows, options.to, options.kinds, runs=options.runs, sample=options.sample)
    for path in written:
        print(path)
    for reason in missing:
        print(f"not drawn: {reason}")
    return 0


def _redraw(folder: Path) -> int:
    from qig.report.figures.files import figure_tables, redraw

    tables = list(figure_tables(folder))
    if not tables:
        raise StoreError(f"no figure's CSV below {folder}")
    for table in tables:
        for path in redraw(table):
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
