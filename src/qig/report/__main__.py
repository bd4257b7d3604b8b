"""``qig-report NAME``: the table of an experiment, from the runs that the store holds; it runs nothing.

NAME is an experiment (qig -m +experiment=NAME), published_consistency, all, or the output folder of a finished run or
sweep, whose closing table is shown once more. Words with = after NAME are overrides, as they were given to qig; with
--from they are read from the sweeps, and neither their device nor their checkpoint and data need to be there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from qig.commands import told
from qig.config import own
from qig.errors import ConfigError, StoreError, choices
from qig.report.closing import close, keep_records
from qig.report.jobs import RUN_FILE, read_jobs
from qig.report.wandb_report import add_option, log_report

CONSISTENCY, ALL = "published_consistency", "all"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 when runs are missing, there is nothing to show, or a job of the folder has failed."""
    parser = argparse.ArgumentParser(prog="qig-report", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="an experiment, published_consistency, all, or the folder of a run or sweep")
    parser.add_argument("overrides", nargs="*", default=[], help="as given to qig -m, such as model=tiny_internvl")
    parser.add_argument("--figures", type=int, default=1,
                        help="of a folder: at most so many token sensitivity figures (default: 1)")
    parser.add_argument("--to", type=Path, help="of an experiment: folder of all results (default: results); "
                        "of a folder: write there, with the record of each run (default: into the folder)")
    parser.add_argument("--html", action="store_true", help="write report.html of all results as well, one page")
    parser.add_argument("--from", dest="sweeps", type=Path, nargs="+", default=[], metavar="SWEEP_DIR",
                        help="of an experiment: take the runs that the jobs of these sweeps left, by any code")
    add_option(parser)
    own.add_option(parser)
    options = parser.parse_intermixed_args(arguments)
    return told("qig-report", lambda: _report(options))


def _report(options: argparse.Namespace) -> int:
    options.overrides += own.words(options.config_dir)
    return _folder(options) if _is_folder(options.name, options.overrides) else _experiments(options)


def _is_folder(name: str, overrides: Sequence[str]) -> bool:
    """A folder unless an experiment has its name; a path with a separator is always one."""
    from qig.experiment.gather import experiments

    return name not in (CONSISTENCY, ALL, *experiments(overrides)) and ("/" in name or Path(name).exists())


def _experiments(options: argparse.Namespace) -> int:
    from qig.experiment.gather import experiments, tabulated
    from qig.report.html.page import write_page
    from qig.report.published.write import write_consistency

    root = options.to or Path("results")
    known = [CONSISTENCY, *experiments(options.overrides)]
    if options.name not in (ALL, *known):
        raise ConfigError(choices(options.name, [ALL, *known], "experiment"))
    if options.sweeps and options.name in (ALL, CONSISTENCY):
        raise ConfigError(f"--from is for one experiment, not for {options.name}")
    names = [CONSISTENCY, *tabulated(False, options.overrides)] if options.name == ALL else [options.name]
    problems = []
    for name in names:
        try:
            written = write_consistency(root) if name == CONSISTENCY else _experiment(name, options, root)
            print(f"{name}: {', '.join(map(str, written))}")
        except StoreError as error:
            problems.append(str(error))
    if options.html:
        print(write_page(root))
    if problems:
        raise StoreError("\n".join(problems))
    return 0


def _experiment(name: str, options: argparse.Namespace, root: Path) -> list[Path]:
    import pandas as pd

    from qig.experiment.gather import gather, tracking_of
    from qig.experiment.swept import gather_from
    from qig.report.tables.write import write_experiment

    tracking, sweeps = tracking_of(name, options.overrides) if options.wandb else None, options.sweeps
    found = gather_from(name, options.overrides, sweeps) if sweeps else gather(name, options.overrides)
    written = write_experiment(found, root)
    if tracking is not None:
        frame = pd.read_csv(next(path for path in written if path.name == f"{name}.csv"), dtype={"runs": str})
        log_report(frame, written, name, tracking, about={"overrides": options.overrides})
    return written


def _folder(options: argparse.Namespace) -> int:
    if options.overrides:
        raise ConfigError(f"{options.name} is a folder, whose runs are what they are; overrides are for experiments")
    if options.html or options.wandb or options.sweeps:
        raise ConfigError(f"{options.name} is a folder; --html, --wandb and --from are for experiments")
    folder = Path(options.name)
    jobs = read_jobs(folder)
    if not jobs:
        raise StoreError(f"no run below {folder}: expected {RUN_FILE} there or in its subfolders")
    problems = close(options.to or folder, jobs, figures=options.figures)
    if options.to is not None:
        keep_records(jobs, options.to / "records")
    return int(bool(problems) or any(job.error is not None for job in jobs))


if __name__ == "__main__":
    sys.exit(main())
