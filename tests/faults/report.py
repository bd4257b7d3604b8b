"""What the campaign found: counted by kind of fault, as JSON and as a table.

    python -m faults.report FOLDER FOLDER --to results     campaigns of different parts at one commit, as one
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Kind:
    """One kind of fault: how many were made, how many trials ended well, in one clear error, or wrongly."""

    faults: int = 0
    trials: int = 0
    right: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)


class Cases:
    """Trials by kind of fault."""

    def __init__(self) -> None:
        self.kinds: dict[str, Kind] = {}
        self.skipped: dict[str, str] = {}
        self.stages: Counter = Counter()

    def add(self, kind: str, faults: int, wrong: list[str], *, refused: int = 0, lost: list[int] = ()) -> None:
        """One trial. ``wrong``: what did not hold; ``refused``: attempts that ended in one clear error, as they should;
        ``lost``: units of work done again, for each kill."""
        found = self.kinds.setdefault(kind, Kind())
        found.trials += 1
        found.faults += faults
        found.refused += refused
        found.lost += lost
        over = [f"{count} units of work lost by one kill" for count in lost if count > 1]
        found.wrong += [*wrong, *over]
        found.right += not (wrong or over)
        print(f"{kind}: {faults} faults, {'; '.join([*wrong, *over]) or 'right'}", flush=True)

    def load(self, record: dict) -> None:
        """What a campaign of other parts found."""
        self.kinds |= {name: Kind(**kind) for name, kind in record["kinds"].items()}
        self.stages.update(record["kills_by_stage"])

    @property
    def ok(self) -> bool:
        return not any(kind.wrong for kind in self.kinds.values())

    def record(self, about: dict, left: dict[str, str]) -> dict:
        """All of it, with ``left``: parts that were not run, and why."""
        lost = [count for kind in self.kinds.values() for count in kind.lost]
        return {
            **about,
            "faults": sum(kind.faults for kind in self.kinds.values()),
            "trials": sum(kind.trials for kind in self.kinds.values()),
            "wrong": sum(bool(kind.wrong) for kind in self.kinds.values()),
            "kills_by_stage": dict(sorted(self.stages.items())),
            "units_lost_per_kill": {"mean": sum(lost) / len(lost) if lost else None, "max": max(lost, default=None)},
            "kinds": {name: vars(kind) for name, kind in self.kinds.items()},
            "skipped": {**self.skipped, **left},
        }


def write(record: dict, folder: Path) -> None:
    """``reliability.json`` and ``reliability.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "reliability.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / "reliability.md").write_text(_markdown(record))


def _markdown(record: dict) -> str:
    rows = [
        f"| {name} | {kind['faults']} | {kind['trials']} | {kind['right']} | {kind['refused']} | {len(kind['wrong'])} "
        f"| {_lost(kind['lost'])} |"
        for name, kind in record["kinds"].items()
    ]
    lost = record["units_lost_per_kill"]
    stages = ", ".join(f"{name} {count}" for name, count in record["kills_by_stage"].items())
    lines = [
        "# Reliability",
        "",
        f"`make faults` at {record['commit']}: {record['faults']} faults in {record['trials']} trials, "
        f"{record['seconds']:.0f} s on one core, seed {record['seed']}; runs of {record['model']}: {record['runs']}. "
        "Each trial ends with an undisturbed command; *right* means that every artefact then is, bit by bit, that of a "
        "store that saw no fault (but for times and memory), that nothing is left behind, and that every message was "
        "one clear error.",
        "",
        "| fault | faults | trials | right | attempts that ended in one error | wrong | lost per kill: mean, most |",
        "|:--|--:|--:|--:|--:|--:|--:|",
        *rows,
        "",
    ]
    if lost["max"] is not None:
        lines += [f"Units of work (a block of the pass or of gradients, a batch of answers) that had to be done again: "
                  f"{lost['mean']:.2f} per kill, at most {lost['max']}.", ""]  # fmt: skip
    lines += [f"Where the kills hit: {stages}.", ""] if stages else []
    lines += [f"* Not run: {name} ({why})." for name, why in record["skipped"].items()]
    lines += [f"* **{name}: {what}**" for name, kind in record["kinds"].items() for what in kind["wrong"]]
    return "\n".join(lines).rstrip() + "\n"


def _lost(counts: list[int]) -> str:
    return f"{sum(counts) / len(counts):.2f}, {max(counts)}" if counts else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description="Put campaigns of different parts together.")
    parser.add_argument("folders", nargs="+", type=Path, help="with reliability.json each")
    parser.add_argument("--to", type=Path, required=True, help="folder for reliability.md and reliability.json")
    arguments = parser.parse_args()
    records = [json.loads((folder / "reliability.json").read_text()) for folder in arguments.folders]
    if len({record["commit"] for record in records}) > 1:
        sys.exit(f"they were found at different commits: {', '.join(record['commit'] for record in records)}")
    cases = Cases()
    for record in records:
        cases.load(record)
    done = {part for record in records for part in record["parts"]}
    about = {key: records[0][key] for key in ("commit", "seed", "model", "runs")}
    about |= {"parts": sorted(done), "seconds": sum(record["seconds"] for record in records)}
    left = {name: why for record in records for name, why in record["skipped"].items() if name not in done}
    write(cases.record(about, left), arguments.to)


if __name__ == "__main__":
    main()
