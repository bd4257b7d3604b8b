"""``make faults``: runs of the real command are killed, damaged, starved and crowded, and must end with the right bits.

    python -m faults.campaign --to results                 all of it: 100 kills and more, about 20 minutes on one core
    python -m faults.campaign --quick                      a handful of each
    python -m faults.campaign --only kills --kills 20      one part
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from faults import clocks, damage, disks, kills, services
from faults.bits import differences
from faults.report import Cases, write
from faults.workload import COMMON, RUNS, Bench, warm

PARTS = ("kills", "damage", "services", "disks", "signals", "clocks", "crowds")


class Campaign:
    """All trials, on stores below one folder; each compares with the store that an undisturbed run left."""

    def __init__(self, root: Path, seed: int, names: Sequence[str]) -> None:
        self.root, self.names = root, list(names)
        self.chance = random.Random(seed)
        self.cases = Cases()
        self.references: dict[str, Path] = {}
        self.costs: dict[str, tuple[float, int]] = {}
        self.trials = 0
        self.after: Callable[[], object] = lambda: None

    def undisturbed(self, twice: bool) -> None:
        """The references; one of them ``twice``, since a run that does not repeat itself proves nothing."""
        for name in self.names:
            begin = time.monotonic()
            bench = Bench(self.root / f"reference-{name}")
            child = bench.run(name)
            if child.code:
                sys.exit(f"the undisturbed run {name} failed: {child.said()[-3000:]}")
            self.references[name], self.costs[name] = bench.store, (time.monotonic() - begin, child.count())
            print(f"undisturbed {name}: {self.costs[name][0]:.1f} s", flush=True)
        if not twice:
            return
        again = Bench(self.root / "again")
        again.run(self.names[0])
        if found := differences(again.store, self.references[self.names[0]]):
            sys.exit(f"two undisturbed runs differ: {found}")

    def trial(self, function: Callable, *arguments, **options):
        """One trial on the next configuration, in a new folder; one that cannot be carried out counts as wrong."""
        name = self.names[self.trials % len(self.names)]
        self.trials += 1
        root = self.root / f"trial-{self.trials}"
        try:
            return function(self.cases, name, self.references[name], *arguments, root=root, **options)
        except (OSError, subprocess.SubprocessError) as error:
            self.cases.add(f"{function.__name__} could not be tried", 0, [f"{type(error).__name__}: {error}"])
            return None
        finally:
            self.after()  # a campaign that is cut short is not lost

    def cost(self) -> tuple[float, int]:
        return self.costs[self.names[self.trials % len(self.names)]]

    def kills(self, number: int, kind: int = signal.SIGKILL) -> None:
        name = signal.Signals(kind).name
        while (done := self.cases.kinds[name].faults if name in self.cases.kinds else 0) < number:
            some = min(number - done, 8)
            hit = self.trial(kills.killed_runs, self.cost(), some, self.chance, number=kind)
            self.cases.stages.update(hit or {})

    def crowds(self, share: float) -> None:
        for size, killed in ((2, 0), (4, 0), (2, 1), (4, 3)):
            for _ in range(max(1, round(2 * share))):
                self.trial(kills.crowd, size, killed, self.chance, seconds=self.cost()[0])

    def damage(self, share: float) -> None:
        for _ in range(max(2, round(12 * share))):
            self.trial(damage.finished, self.chance)
        for _ in range(max(2, round(12 * share))):
            self.trial(damage.unfinished, self.cost(), self.chance)

    def disks(self, share: float) -> None:
        if disks.can_mount():
            for _ in range(max(1, round(6 * share))):
                self.trial(disks.full, self.chance)
            for _ in range(max(1, round(3 * share))):
                self.trial(disks.full_output, self.chance)
            for finished in (True, False):
                self.trial(disks.read_only, finished)
        else:
            self.cases.skipped["full and read-only disks"] = "file systems can be mounted by root alone"
        for _ in range(max(1, round(4 * share))):
            self.trial(disks.quota, self.chance)

    def clocks(self, share: float) -> None:
        for _ in range(max(1, round(4 * share))):
            self.trial(clocks.jump_between, self.cost(), self.chance)
        for kill in (False, True):
            for _ in range(max(1, round(2 * share))):
                self.trial(clocks.machines, self.chance, kill=kill)

    def services(self) -> None:
        self.trial(services.service_killed)
        self.trial(services.no_server)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, help="folder for reliability.md and reliability.json")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts of the campaign")
    parser.add_argument("--share", type=float, default=1.0, help="of the trials besides kills (default 1)")
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs at random moments (default 100)")
    parser.add_argument("--quick", action="store_true", help="a handful of each, on one configuration")
    parser.add_argument("--seed", type=int, default=0, help="of moments, damages and sizes")
    parser.add_argument("--keep", action="store_true", help="leave the folder of stores and logs")
    arguments = parser.parse_args()
    begin = time.monotonic()
    warm()
    root = Path(tempfile.mkdtemp(prefix="qig-faults-"))
    campaign = Campaign(root, arguments.seed, list(RUNS)[:1] if arguments.quick else RUNS)
    share = 0.1 if arguments.quick else arguments.share
    try:
        campaign.undisturbed(twice=not arguments.quick)
        steps = {
            "kills": lambda: campaign.kills(min(5, arguments.kills) if arguments.quick else arguments.kills),
            "signals": lambda: [campaign.kills(max(1, round(8 * share)), kind)
                                for kind in (signal.SIGTERM, signal.SIGUSR1)],
            "crowds": lambda: campaign.crowds(share),
            "damage": lambda: campaign.damage(share),
            "disks": lambda: campaign.disks(share),
            "clocks": lambda: campaign.clocks(share),
            "services": campaign.services,
        }  # fmt: skip
        commit, done = _commit(), []

        def note() -> dict:
            left = {part: "left out, or cut short" for part in PARTS if part not in done}
            record = campaign.cases.record(
                {"parts": done, "commit": commit, "seed": arguments.seed, "seconds": time.monotonic() - begin,
                 "model": COMMON[0].partition("=")[2], "runs": ", ".join(campaign.names)}, left)  # fmt: skip
            if arguments.to:
                write(record, arguments.to)
            return record

        campaign.after = note
        for part in arguments.only:
            steps[part]()
            done.append(part)
        record = note()
    finally:
        if not arguments.keep:
            shutil.rmtree(root, ignore_errors=True)
    print(f"{record['faults']} faults in {record['trials']} trials, {record['wrong']} kinds of fault with wrong ends")
    sys.exit(0 if campaign.cases.ok else 1)


def _commit() -> str:
    from qig.repository import repository

    clone = repository()
    return "an unknown commit" if clone is None else clone.commit[:10] + (" with changes" if clone.dirty else "")


if __name__ == "__main__":
    main()
