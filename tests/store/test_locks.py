"""Locks: one holder at a time, the dead are replaced once, the living never."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from qig.store import locks
from qig.store.locks import Lock, holder
from qig.store.owner import Owner

FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(locks, "BEAT", 0.05)
    monkeypatch.setattr(locks, "SILENCE", 0.6)
    monkeypatch.setattr(locks, "PAUSE", (0.01, 0.02))


def abandoned(folder, owner: Owner):
    """A lock whose owner will never give it up."""
    record = folder / "k" / "0123.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps(asdict(owner)))
    return record


def test_held_within_and_free_afterwards(tmp_path):
    with Lock(tmp_path, "k") as lock:
        assert lock.held and holder(tmp_path / "k").owner == Owner.me() and Owner.me().runs is True
    assert list(tmp_path.iterdir()) == []


def test_given_up_when_the_work_raises(tmp_path):
    with pytest.raises(KeyError), Lock(tmp_path, "k"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def _count(folder, counter, barrier):
    barrier.wait()
    for _ in range(20):
        with Lock(folder, "k"):
            value = int(counter.read_text())
            time.sleep(0.001)
            counter.write_text(str(value + 1))


def test_one_at_a_time(tmp_path):
    counter, barrier = tmp_path / "counter", FORK.Barrier(4)
    counter.write_text("0")
    workers = [FORK.Process(target=_count, args=(tmp_path / "locks", counter, barrier)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert counter.read_text() == "80"


def _hold(folder, ready):
    with Lock(folder, "k"):
        ready.set()
        time.sleep(60)


@pytest.mark.parametrize("collected", [True, False])
def test_a_killed_owner_on_this_machine_is_replaced_at_once(tmp_path, monkeypatch, collected):
    monkeypatch.setattr(locks, "SILENCE", 3600)
    ready = FORK.Event()
    victim = FORK.Process(target=_hold, args=(tmp_path, ready))
    victim.start()
    assert ready.wait(30)
    os.kill(victim.pid, signal.SIGKILL)
    if collected:
        victim.join()
    with Lock(tmp_path, "k") as lock:
        assert lock.held
    victim.join()


def test_an_owner_on_this_machine_that_is_stopped_keeps_its_lock_for_as_long_as_it_exists(tmp_path):
    ready, taken = FORK.Event(), threading.Event()
    victim = FORK.Process(target=_hold, args=(tmp_path, ready))
    victim.start()
    assert ready.wait(30)
    os.kill(victim.pid, signal.SIGSTOP)

    def wait():
        with Lock(tmp_path, "k"):
            taken.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    kept = not taken.wait(4 * locks.SILENCE)
    os.kill(victim.pid, signal.SIGKILL)
    assert taken.wait(30) and kept
    waiter.join()
    victim.join()


def test_a_process_is_told_by_when_it_started():
    """In ticks since the boot, by psutil's own reckoning; a number used twice is told apart by nothing else."""
    started = Owner.me().started / os.sysconf("SC_CLK_TCK")
    assert started == pytest.approx(psutil.Process().create_time() - psutil.boot_time(), abs=1.5)


def test_a_number_that_another_process_now_has(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "SILENCE", 3600)
    me = Owner.me()
    abandoned(tmp_path, replace(me, started=me.started - 1))
    with Lock(tmp_path, "k") as lock:
        assert lock.held


@pytest.fixture
def clock(monkeypatch):
    """Of whoever waits for a lock: it moves by what was slept, and by nothing else."""

    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

        def sleep(self, seconds: float) -> None:
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(locks, "time", clock)
    return clock


ELSEWHERE = Owner("elsewhere", "elsewhere boot namespace", os.getpid(), 1)


@pytest.mark.parametrize("record", [None, "", "{", "[]", '{"host": 1}'])
def test_silence_of_another_machine_or_of_a_broken_record_is_death(tmp_path, clock, record):
    file = abandoned(tmp_path, ELSEWHERE)
    if record is not None:
        file.write_text(record)
    with Lock(tmp_path, "k") as lock:
        assert lock.held
    assert clock.now > locks.SILENCE


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_a_heartbeat_of_another_machine_is_life_whatever_the_clocks_say(tmp_path, jump):
    """Its record's time is far from ours, and moves: nobody may take over, for several times the silence."""
    file = abandoned(tmp_path, ELSEWHERE)
    taken, stop = threading.Event(), threading.Event()

    def wait():
        with Lock(tmp_path, "k"):
            taken.set()

    def beat():
        beats = 0
        while not stop.wait(0.05):
            beats += 1
            os.utime(file, (1e9 + jump + beats, 1e9 + jump + beats))

    heart, waiter = threading.Thread(target=beat), threading.Thread(target=wait)
    heart.start()
    waiter.start()
    assert not taken.wait(2)
    stop.set()
    heart.join()
    assert taken.wait(30)
    waiter.join()


def test_the_heartbeat_moves(tmp_path):
    with Lock(tmp_path, "k"):
        first = holder(tmp_path / "k").pulse
        deadline = time.monotonic() + 30
        while holder(tmp_path / "k").pulse == first and time.monotonic() < deadline:
            time.sleep(0.02)
        assert holder(tmp_path / "k").pulse != first


def _take_over(folder, log, barrier):
    barrier.wait()
    with Lock(folder, "k"), log.open("a") as stream:
        stream.write(f"in {os.getpid()}\n")
        stream.flush()
        time.sleep(0.05)
        stream.write(f"out {os.getpid()}\n")


def test_many_waiters_take_over_from_the_dead_one_after_the_other(tmp_path):
    me = Owner.me()
    abandoned(tmp_path / "locks", replace(me, started=me.started - 1))
    log, barrier = tmp_path / "log", FORK.Barrier(6)
    workers = [FORK.Process(target=_take_over, args=(tmp_path / "locks", log, barrier)) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    lines = [line.split() for line in log.read_text().splitlines()]
    assert len(lines) == 12
    for (one, mine), (other, same) in zip(lines[::2], lines[1::2], strict=True):
        assert (one, other) == ("in", "out") and mine == same


def test_an_owner_that_was_replaced_knows_it_and_leaves_its_successor_alone(tmp_path):
    with Lock(tmp_path, "k") as first:
        holder(tmp_path / "k").file.unlink()
        second = Lock(tmp_path, "k").__enter__()
        assert not first.held and second.held
    assert second.held and holder(tmp_path / "k").file.stem == second.claim
    second.__exit__()


def test_what_killed_processes_prepared_is_swept(tmp_path):
    me = Owner.me()
    for owner, name in ((replace(me, started=1), ".k.dead"), (ELSEWHERE, ".k.elsewhere")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.json").write_text(json.dumps(asdict(owner)))
    with Lock(tmp_path, "k"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".k.elsewhere"]


def test_a_lock_that_goes_while_it_is_looked_into_is_free(tmp_path, monkeypatch):
    lock = tmp_path / "k"
    lock.mkdir()

    def gone(self, _pattern):
        shutil.rmtree(self)
        return os.scandir(self)

    monkeypatch.setattr(Path, "glob", gone)
    assert holder(lock) is None
