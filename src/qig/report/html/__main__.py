"""``python -m qig.report.html [RESULTS]``: one self-contained page of all tables and figures in a results folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from qig.commands import told


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 when there is nothing to show."""
    parser = argparse.ArgumentParser(prog="python -m qig.report.html", description=__doc__)
    parser.add_argument("results", nargs="?", type=Path, default=Path("results"), help="default: results")
    parser.add_argument("--to", type=Path, help="the page (default: report.html in the folder)")
    options = parser.parse_args(arguments)
    from qig.report.html.page import write_page

    return told("qig.report.html", lambda: print(write_page(options.results, options.to)))


if __name__ == "__main__":
    sys.exit(main())
