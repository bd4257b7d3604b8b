"""``qig-paper``: run every experiment (or those named) and write its table; what the store holds is not run again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from qig.commands import told
from qig.config import own
from qig.errors import ConfigError
from qig.experiment.together import LOGS, Together
from qig.stopping import Stopped, stoppable


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 when every sweep and table went through. One that fails does not stop the others."""
    parser = argparse.ArgumentParser(prog="qig-paper", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="NAME or KEY=VALUE",
                        help="experiments (default: all that need nothing to be fetched), and overrides, as for qig -m")
    parser.add_argument("--plan", action="store_true", help="say what is missing and what it would cost; run nothing")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="experiments at the same time, on one store; "
                        f"each then writes its progress into {LOGS}/NAME.log (default: 1)")
    parser.add_argument("--to", type=Path, default=Path("results"), help="folder of all results (default: results)")
    own.add_option(parser)
    options = parser.parse_intermixed_args(arguments)
    return told("qig-paper", lambda: _paper(options))


def _paper(options: argparse.Namespace) -> int:
    if options.jobs < 1:
        raise ConfigError(f"--jobs {options.jobs}: expected 1 or more")
    overrides = [word for word in options.words if "=" in word] + own.words(options.config_dir)
    names = _announced(_chosen([word for word in options.words if "=" not in word], overrides), overrides)
    return 0 if options.plan else _run(names, overrides, options.to, options.jobs)


def _chosen(names: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """Those named, of which no other's file is read, so that one that is broken is in nobody's way."""
    from qig.experiment.gather import table_of, tabulated

    for name in names:
        table_of(name, overrides)
    return list(names) or tabulated(on_request=False, overrides=overrides)


def _announced(names: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """Says what each would cost, and returns the longest first, so that none is left over at the end."""
    from qig.experiment.estimate import estimate
    from qig.experiment.gather import plan

    seen: set[str] = set()
    missing, seconds = 0, {}
    for name in names:
        found = estimate(plan(name, overrides), seen)
        missing += found.missing
        seconds[name] = found.seconds
        print(f"{name:26} {found.runs:4} runs not counted above, {found.missing:4} missing, "
              f"about {found.seconds / 60:5.1f} min", flush=True)
    print(f"{'all':26} {missing:4} runs missing, about {sum(seconds.values()) / 60:.0f} min with the embedded models, "
          "one after the other", flush=True)
    return sorted(names, key=seconds.__getitem__, reverse=True)


def _run(names: Sequence[str], overrides: Sequence[str], root: Path, jobs: int) -> int:
    def report(name: str, *words: str) -> list[str]:
        return ["-m", "qig.report", name, *words, "--to", str(root)]

    steps = {name: [["-m", "qig", "-m", f"+experiment={name}", *overrides], report(name, *overrides)] for name in names}
    try:
        with stoppable():
            failed = Together(jobs).run(steps)
            failed += Together(1).run({"published_consistency": [report("published_consistency")]})
    except Stopped as stopped:
        print(f"{stopped}: what is finished is kept, and the same command goes on from there", file=sys.stderr)
        return stopped.code
    print(f"{len(names) + 1 - len(failed)} of {len(names) + 1} done"
          + (f"; failed: {', '.join(failed)}; the same command goes on" if failed else ""), flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
