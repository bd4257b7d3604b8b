"""Killed processes: at random times, at random events, one after the other on one store, and while others wait."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from pathlib import Path

from faults.bits import differences
from faults.report import Cases
from faults.workload import Bench, Child

STEP = 0.25
"""A run gets at most so far with each attempt, as a share of its work, so that many kills spread over it."""


def kill_at_random(child: Child, chance: random.Random, seconds: float, events: int, number=signal.SIGKILL) -> bool:
    """Kill a running child: half of the time at a moment, half at an event (a stage begins, a file is to be written).

    ``seconds``, ``events`` (bytes of the log): what the whole would take. Returns whether it was still running.
    """
    begin = time.monotonic()
    if chance.random() < 0.5:
        until = begin + chance.uniform(0, seconds)
        while child.running() and time.monotonic() < until:
            time.sleep(0.001)
    else:
        at, pause = chance.uniform(0, events), chance.choice((0, 0, 0.002, 0.02))
        while child.running() and child.count() < at:
            time.sleep(0.0002)
        time.sleep(pause)
    killed = child.running()
    child.kill(number)
    return killed


def lost_units(children: list[Child]) -> list[int]:
    """Of each child, how many units of work it began that a later one had to begin again."""
    begun = [set(child.begun()) for child in children]
    return [len(mine & set().union(*begun[i + 1 :])) for i, mine in enumerate(begun)]


def killed_runs(
    cases: Cases, name: str, reference: Path, cost: tuple[float, int], kills: int, chance: random.Random, root: Path,
    number: int = signal.SIGKILL,
) -> Counter:  # fmt: skip
    """One run, killed ``kills`` times and then left alone; returns how many kills hit which stage."""
    bench, hit, done = Bench(root), Counter(), 0
    kind = signal.Signals(number).name
    killed: list[Child] = []
    clean: list[str] = []
    seconds, events = cost
    left = 1.0  # of the work
    while done < kills:
        child = bench.start(name)
        share = min(STEP, left)
        if not kill_at_random(child, chance, share * seconds, int(share * events), number):
            if child.code == 0:
                break  # it was done before: the rest of the kills go to another run
            continue
        done += 1
        left = max(0.05, left - child.count() / events)
        hit[child.stage()] += 1
        killed.append(child)
        # Before the command has begun, a signal does what it always does.
        ends = {128 + number, -number} if child.stage() == "start" else {128 + number}
        if number != signal.SIGKILL and (child.code not in ends or "Traceback" in child.said()):
            clean.append(f"{kind} ended with {child.code}: {child.said()[-300:]}")
    last = bench.run(name)
    wrong = clean + ([f"exit status {last.code}: {last.said()[-500:]}"] if last.code else [])
    wrong += differences(bench.store, reference)
    lost = lost_units([*killed, last])[:-1]
    cases.add(kind, done, wrong, lost=lost)
    bench.clear()
    return hit


def crowd(
    cases: Cases, name: str, reference: Path, size: int, kills: int, chance: random.Random, root: Path, seconds: float
) -> None:
    """``size`` processes on one run at the same time; the one at work is killed ``kills`` times while others wait."""
    bench = Bench(root)
    children = [bench.start(name) for _ in range(size)]
    for _ in range(kills):
        time.sleep(chance.uniform(0, seconds / (kills + 1)))
        owner = _at_work(bench, children)
        if owner is not None:
            owner.kill()
    codes = [child.wait() for child in children]
    killed = [child for child in children if child.code == -signal.SIGKILL]
    wrong = [f"exit status {code}" for code in codes if code not in (0, -signal.SIGKILL)]
    wrong += [child.said()[-500:] for child in children if child.code not in (0, -signal.SIGKILL)]
    if len(killed) == size:
        bench.run(name)
    wrong += differences(bench.store, reference)
    units = Counter(unit for child in children for unit in child.begun())
    again = sum(count - 1 for count in units.values())
    if again > len(killed):
        wrong.append(f"{again} units were done again after {len(killed)} kills")
    cases.add(f"{size} processes on one run" + (", the one at work killed" if kills else ""), 1, wrong,
              lost=[again] if killed else [])  # fmt: skip
    bench.clear()


def _at_work(bench: Bench, children: list[Child]) -> Child | None:
    from qig.store.locks import holder

    locks = bench.store / "locks"
    for lock in sorted(locks.iterdir()) if locks.is_dir() else []:
        held = None if lock.name.startswith(".") else holder(lock)
        if held and held.owner:
            return next((child for child in children if child.pid == held.owner.pid and child.running()), None)
    return None
