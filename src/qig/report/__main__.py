"""``python -m qig.report FOLDER``: the closing table of a finished run or sweep once more; ``--to`` keeps it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from qig.errors import QigError, StoreError
from qig.report.closing import close, keep_records
from qig.report.jobs import RUN_FILE, read_jobs


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 when there is nothing to show or a job of the folder has failed."""
    parser = argparse.ArgumentParser(prog="python -m qig.report", description=__doc__)
    parser.add_argument("folder", type=Path, help="output folder of a run or a sweep")
    parser.add_argument("--figures", type=int, default=1, help="at most so many token sensitivity figures (default: 1)")
    parser.add_argument("--to", type=Path, help="write there, with the record of each run (default: into FOLDER)")
    options = parser.parse_args(arguments)
    try:
        jobs = read_jobs(options.folder)
        if not jobs:
            raise StoreError(f"no run below {options.folder}: expected {RUN_FILE} there or in its subfolders")
        close(options.to or options.folder, jobs, figures=options.figures)
        if options.to is not None:
            keep_records(jobs, options.to / "records")
    except QigError as error:
        print(f"qig.report: {error}", file=sys.stderr)
        return 1
    return int(any(job.error is not None for job in jobs))


if __name__ == "__main__":
    sys.exit(main())
