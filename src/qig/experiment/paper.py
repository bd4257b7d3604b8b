"""``qig-paper``: run every experiment (or those named) and write its table; what the store holds is not run again."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from qig.errors import ConfigError, QigError, choices


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 when every sweep and table went through. One that fails does not stop the others."""
    parser = argparse.ArgumentParser(prog="qig-paper", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="NAME or KEY=VALUE",
                        help="experiments (default: all that need nothing to be fetched), and overrides, as for qig -m")
    parser.add_argument("--plan", action="store_true", help="say what is missing and what it would cost; run nothing")
    parser.add_argument("--to", type=Path, default=Path("results"), help="folder of all results (default: results)")
    options = parser.parse_args(arguments)
    overrides = [word for word in options.words if "=" in word]
    try:
        names = _chosen([word for word in options.words if "=" not in word])
        _announce(names, overrides)
    except QigError as error:
        print(f"qig-paper: {error}", file=sys.stderr)
        return 1
    return 0 if options.plan else _run(names, overrides, options.to)


def _chosen(names: Sequence[str]) -> list[str]:
    from qig.experiment.gather import tabulated

    known = tabulated()
    for name in names:
        if name not in known:
            raise ConfigError(choices(name, known, "experiment"))
    return list(names) or tabulated(on_request=False)


def _announce(names: Sequence[str], overrides: Sequence[str]) -> None:
    from qig.experiment.estimate import estimate
    from qig.experiment.gather import plan

    seen: set[str] = set()
    missing = seconds = 0
    for name in names:
        found = estimate(plan(name, overrides), seen)
        missing += found.missing
        seconds += found.seconds
        print(f"{name:26} {found.runs:4} runs not counted above, {found.missing:4} missing, "
              f"about {found.seconds / 60:5.1f} min", flush=True)
    print(f"{'all':26} {missing:4} runs missing, about {seconds / 60:.0f} min with the embedded models on 2 cores",
          flush=True)


def _run(names: Sequence[str], overrides: Sequence[str], root: Path) -> int:
    """Each step in a process of its own: what one breaks, another does not feel."""
    failed = []
    for name in names:
        print(f"== {name}", flush=True)
        sweep = [sys.executable, "-m", "qig", "-m", f"+experiment={name}", *overrides]
        report = [sys.executable, "-m", "qig.report", name, *overrides, "--to", str(root)]
        failed += [name] if any([subprocess.run(step).returncode for step in (sweep, report)]) else []
    consistency = [sys.executable, "-m", "qig.report", "published_consistency", "--to", str(root)]
    failed += ["published_consistency"] if subprocess.run(consistency).returncode else []
    print(f"{len(names) + 1 - len(failed)} of {len(names) + 1} done"
          + (f"; failed: {', '.join(failed)}; the same command goes on" if failed else ""), flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
