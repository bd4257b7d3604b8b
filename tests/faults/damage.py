"""Torn, flipped, emptied and missing files, in finished artefacts and in what a killed run left."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from faults.bits import differences
from faults.kills import kill_at_random
from faults.report import Cases
from faults.workload import Bench


def spoil(file: Path, chance: random.Random) -> str:
    """Damage a file in one of four ways; says in which."""
    content = bytearray(file.read_bytes())
    way = chance.choice(("flipped", "torn", "emptied", "removed", "zeros"))
    if way == "removed":
        file.unlink()
    elif way == "flipped" and content:
        place = chance.randrange(8 * len(content))
        content[place // 8] ^= 1 << place % 8
        file.write_bytes(content)
    elif way == "zeros":  # what a power cut may leave of a file whose blocks never reached the disk
        file.write_bytes(bytes(len(content)))
    else:
        file.write_bytes(content[: chance.randrange(len(content))] if way == "torn" and content else b"")
    return way


def files_of(store: Path, pattern: str) -> list[Path]:
    return sorted(file for folder in store.glob(pattern) for file in folder.rglob("*") if file.is_file())


def finished(cases: Cases, name: str, reference: Path, chance: random.Random, root: Path) -> None:
    """One file of a finished store is damaged: that is reported, and what it belongs to is made again."""
    bench = Bench(root)
    shutil.copytree(reference, bench.store)
    file = chance.choice(files_of(bench.store, "*/[0-9a-f]*"))
    if file.relative_to(bench.store).parts[0] == "gradients":  # looked at only where they are needed
        for folder in bench.store.glob("quantized/*"):
            shutil.rmtree(folder)
    way = spoil(file, chance)
    last = bench.run(name)
    wrong = [f"exit status {last.code}: {last.said()[-500:]}"] if last.code else []
    for aside in bench.store.glob("*/.damaged-*"):
        shutil.rmtree(aside)
    wrong += [f"{file.relative_to(bench.store)} {way}: {what}" for what in differences(bench.store, reference)]
    cases.add("damaged file of a finished artefact", 1, wrong)
    bench.clear()


def unfinished(
    cases: Cases, name: str, reference: Path, cost: tuple[float, int], chance: random.Random, root: Path
) -> None:
    """A run is killed, a file of what it left is damaged, and it is run again."""
    bench = Bench(root)
    files: list[Path] = []
    while not files:
        child = bench.start(name)
        kill_at_random(child, chance, *cost)
        files = [*files_of(bench.store, "*/.partial-*"), *files_of(bench.store, "locks/*")]
        if child.code == 0:
            shutil.rmtree(bench.store)
    file = chance.choice(files)
    way = spoil(file, chance)
    last = bench.run(name, inside=impatient)
    wrong = [f"exit status {last.code}: {last.said()[-500:]}"] if last.code else []
    wrong += [f"{file.name} {way}: {what}" for what in differences(bench.store, reference)]
    cases.add("damaged file of an unfinished artefact or a lock", 1, wrong)
    bench.clear()


def impatient() -> None:
    """Shorter waiting for a lock whose owner cannot be known, so that a trial does not take a minute."""
    from qig.store import locks

    locks.BEAT, locks.SILENCE = 0.2, 2.0
