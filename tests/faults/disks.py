"""Disks that are full, small by quota, or read-only; under the store, and under the job's own folder."""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faults.bits import differences
from faults.report import Cases
from faults.workload import Bench, Child


def can_mount() -> bool:
    if os.geteuid():
        return False
    folder = Path("/tmp") / f"qig-faults-{os.getpid()}"
    folder.mkdir()
    try:
        with small(folder, 1 << 20):
            return True
    except subprocess.CalledProcessError:
        return False
    finally:
        folder.rmdir()


@contextmanager
def small(folder: Path, size: int) -> Iterator[None]:
    """A file system of ``size`` bytes at ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={max(size, 8192)}", "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


def full(cases: Cases, name: str, reference: Path, chance: random.Random, root: Path) -> None:
    """The store's disk is too small; it grows, and the same command goes on."""
    bench = Bench(root, root / "disk" / "store")
    needed = sum(file.stat().st_size for file in reference.rglob("*") if file.is_file())
    with small(root / "disk", int(needed * chance.uniform(0.05, 1.1))):
        first = bench.run(name)
        wrong, refused = _one_error(first)
        _mount("-o", f"remount,size={8 * needed}", str(root / "disk"))
        wrong += _ends_right(bench, name, reference)
    cases.add("full disk under the store", 1, wrong, refused=refused)
    bench.clear()


def full_output(cases: Cases, name: str, reference: Path, chance: random.Random, root: Path) -> None:
    """The job's own folder, with Hydra's files and the log, lies on a full disk."""
    bench = Bench(root)
    with small(root / "disk", chance.choice((8192, 12288, 16384, 32768))):
        (root / "disk/filler").write_bytes(b"x" * 2048)
        first = bench.run(name, cwd=root / "disk")
        wrong, refused = _one_error(first)
    wrong += _ends_right(bench, name, reference)
    cases.add("full disk under the job's folder", 1, wrong, refused=refused)
    bench.clear()


def quota(cases: Cases, name: str, reference: Path, chance: random.Random, root: Path) -> None:
    """No file may grow beyond a limit."""
    bench = Bench(root)
    limit = int(10 ** chance.uniform(3, 5.5))
    first = bench.run(name, inside=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    wrong, refused = _one_error(first)
    wrong += _ends_right(bench, name, reference)
    cases.add("limit on the size of files", 1, wrong, refused=refused)
    bench.clear()


def read_only(cases: Cases, name: str, reference: Path, finished: bool, root: Path) -> None:
    """A store that cannot be written: what is finished can be used, all else is one error."""
    bench = Bench(root, root / "disk" / "store")
    with small(root / "disk", 1 << 30):
        if finished:
            shutil.copytree(reference, bench.store)
        else:
            bench.run(name, "evaluation.limit=4")  # another run's artefacts
        _mount("-o", "remount,ro", str(root / "disk"))
        first = bench.run(name)
        wrong, refused = _one_error(first)
        if bool(refused) == finished:
            wrong.append(f"exit status {first.code} with {'a finished' if finished else 'an unfinished'} run")
        _mount("-o", "remount,rw", str(root / "disk"))
        if not finished:
            shutil.rmtree(bench.store, ignore_errors=True)  # of the other run
        wrong += _ends_right(bench, name, reference)
    cases.add("read-only store", 1, wrong, refused=refused)
    bench.clear()


def _one_error(child: Child) -> tuple[list[str], int]:
    """What is wrong with how a command ended that could not write, and whether it was refused."""
    if child.code == 0:
        return [], 0
    said = (child.folder / "said").read_text()
    wrong = []
    if "Traceback" in said:
        wrong.append(f"a traceback: {said[said.index('Traceback'):][-600:]}")
    if child.code < 0:
        wrong.append(f"died of signal {-child.code}: {said[-300:]}")
    if said.count("error: ") != 1:
        wrong.append(f"{said.count('error: ')} errors were told: {said[-600:]}")
    return wrong, 1


def _ends_right(bench: Bench, name: str, reference: Path) -> list[str]:
    last = bench.run(name)
    wrong = [f"exit status {last.code}: {last.said()[-500:]}"] if last.code else []
    return wrong + differences(bench.store, reference)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)
