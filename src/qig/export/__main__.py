"""``qig-export RUN --to DIR``: a finished run as a compressed-tensors checkpoint that others load."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from qig.commands import told
from qig.config import default_store
from qig.export.runtimes import OVERVIEW, hint
from qig.export.scheme import WIDENABLE, is_widenable

GIGABYTE = 10**9


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 when there is nothing exported, or what is there is not the run's export."""
    parser = argparse.ArgumentParser(
        prog="qig-export",
        description=__doc__,
        epilog=OVERVIEW,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run",
        help="a run's id (the closing table shows its beginning), its folder STORE/runs/ID, or its job's output folder",
    )
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="directory to write, not there or empty")
    parser.add_argument("--store", type=Path, default=default_store(), help="where the run is (default: %(default)s)")
    parser.add_argument("--shard-size", type=float, default=5, metavar="GB", help="largest file (default: %(default)s)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--verify", action="store_true", help="write nothing: derive every tensor anew and compare")
    mode.add_argument(
        "--widen",
        action="store_true",
        help=f"the same integers in the next wider container that has kernels; only the size grows: {WIDENABLE}",
    )
    options = parser.parse_args(arguments)
    options.to = options.to.absolute()  # `.` has no name
    if not options.shard_size > 0:
        parser.error(f"--shard-size {options.shard_size:g}: expected more than 0 GB")
    return told("qig-export", lambda: print(_run(options)))


def _run(options: argparse.Namespace) -> str:
    from qig.export.source import open_source

    source = open_source(options.run, options.store)  # before torch is imported, so that a typo is told at once
    from qig.environment import quiet

    quiet()
    from qig.export.tensors import Plan
    from qig.export.verify import verify
    from qig.export.write import check_free, is_widened, write

    if options.verify:
        plan = Plan.of(source, widen=is_widenable(source.quant) and is_widened(options.to))
        return f"{options.to}: {verify(plan, options.to)} tensors and all files are those of run {source.run.id}"
    check_free(options.to)
    plan = Plan.of(source, options.widen)
    write(plan, options.to, round(options.shard_size * GIGABYTE))
    done = f"run {source.run.id} exported to {options.to}; how to load it stands in its README.md"
    note = None if options.widen else hint(source.quant)
    return done if note is None else f"{done}\n{note}"


if __name__ == "__main__":
    sys.exit(main())
