"""Clocks that jump, and owners on other machines."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from faults.bits import differences
from faults.damage import impatient
from faults.report import Cases
from faults.workload import Bench


def jumping(seed: int) -> None:
    """In a child: every question after the time is answered by a clock that jumps by up to ten years either way."""
    chance, real = random.Random(seed), time.time
    time.time = lambda: real() + chance.uniform(-3e8, 3e8)
    time.time_ns = lambda: int(time.time() * 1e9)
    utime = os.utime

    def stamped(path, times=None, **options):
        now = time.time()
        utime(path, (now, now) if times is None else times, **options)

    os.utime = stamped


def elsewhere() -> None:
    """In a child: as if on another machine, so that nothing but its heartbeat says that it lives."""
    from qig.store import owner

    space = f"elsewhere {os.getpid()}"
    owner._space = lambda: space
    impatient()


def jump_between(cases: Cases, name: str, reference: Path, cost, chance: random.Random, root: Path) -> None:
    """A run is killed, all its files get times from another decade, and it goes on with a jumping clock."""
    from faults.kills import kill_at_random

    bench = Bench(root)
    kill_at_random(bench.start(name, inside=lambda: jumping(1)), chance, *cost)
    when = time.time() + chance.choice((-1, 1)) * chance.uniform(1e5, 3e8)
    for file in bench.store.rglob("*"):
        os.utime(file, (when, when))
    last = bench.run(name, inside=lambda: jumping(2))
    wrong = [f"exit status {last.code}: {last.said()[-500:]}"] if last.code else []
    cases.add("clock jump", 1, wrong + differences(bench.store, reference))
    bench.clear()


def machines(cases: Cases, name: str, reference: Path, chance: random.Random, root: Path, kill: bool) -> None:
    """Two machines whose clocks jump on one run; the first may die, and the second then takes over by its silence."""

    def inside(seed):
        def prepare():
            elsewhere()
            jumping(seed)

        return prepare

    bench = Bench(root)
    first = bench.start(name, inside=inside(1))
    while first.running() and len(first.begun()) < 2:
        time.sleep(0.01)
    second = bench.start(name, inside=inside(2))
    time.sleep(chance.uniform(1, 3))
    if kill:
        first.kill()
    codes = first.wait(), second.wait()
    wrong = [] if codes[1] == 0 and codes[0] in (0, -9) else [f"exit status {codes}: {second.said()[-500:]}"]
    twice = set(first.begun()) & set(second.begun())
    if len(twice) > bool(kill):
        wrong.append(f"both did {sorted(twice)}")
    wrong += differences(bench.store, reference)
    kind = "two machines, jumping clocks" + (", one dies" if kill else "")
    cases.add(kind, 1, wrong, lost=[len(twice)] if kill else [])
    bench.clear()
