"""``qig-runs``: list, show, compare, verify, prune and repeat the runs of a store."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from qig.commands import told
from qig.config import default_store

COMMANDS = ("list", "show", "compare", "verify", "prune", "repro")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: that of the subcommand; 1 with one message for a mistake of the user."""
    parser = argparse.ArgumentParser(prog="qig-runs", description=__doc__)
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    store = default_store()
    for name in COMMANDS:
        module = import_module(f"qig.runs.{name}")
        about = module.__doc__.partition("``: ")[2]
        sub = subparsers.add_parser(name, help=about.partition("\n")[0], description=about[:1].upper() + about[1:],
                                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
        sub.add_argument("--store", type=Path, default=store, help="the store (default: %(default)s)")
        module.add_arguments(sub)
        sub.set_defaults(action=module.run)
    options = parser.parse_args(arguments)
    try:
        return told("qig-runs", lambda: options.action(options))
    except BrokenPipeError:  # head, less
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)
        return 0


if __name__ == "__main__":
    sys.exit(main())
