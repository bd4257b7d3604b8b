import platform
import subprocess
import sys

import pytest

from qig.heap import give_back

# In a process of its own: what a worker's heap has been through decides where it ends, and glibc gives back by itself
# what is free at its end. Blocks are below the size from which glibc asks the system for each.
FREED = """
import psutil
from qig.heap import give_back
resident = lambda: psutil.Process().memory_info().rss
give_back()
blocks = [b"1" * 100_000 for _ in range(4000)]
last = b"1" * 100_000
full = resident()
del blocks
kept = resident()
give_back()
print(full - kept, full - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is freed")
def test_what_was_freed_goes_back_to_the_system():
    said = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True).stdout
    by_itself, given = map(int, said.split())
    assert by_itself < 100e6 and given > 300e6


def test_a_run_gives_back_what_it_took_to_compute_it(stages, config, monkeypatch):
    given = []
    monkeypatch.setattr("qig.stages.give_back", lambda: given.append(list(stages.made)))
    assert [stages.record(config)[1] for _ in range(2)] == [False, True]
    assert given == [["quantized", "evaluation", "runs"]]  # once, after it


def test_a_graphics_cards_memory_goes_back_where_there_is_one(monkeypatch):
    given = []
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: given.append(1))
    give_back()
    assert not given
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    give_back()
    assert given == [1]
