import platform

import psutil
import pytest

from qig.heap import give_back


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is freed")
def test_what_was_freed_goes_back_to_the_system():
    resident = psutil.Process().memory_info
    blocks = [b"\1" * 100_000 for _ in range(4000)]  # below the size from which glibc asks the system for each
    last = bytearray(100_000)  # above them all, so that the heap's end stays where it is
    full = resident().rss
    del blocks
    kept = resident().rss
    give_back()
    assert full - kept < 100e6 and full - resident().rss > 300e6
    assert len(last) == 100_000


def test_a_run_gives_back_what_it_took_to_compute_it(stages, config, monkeypatch):
    given = []
    monkeypatch.setattr("qig.stages.give_back", lambda: given.append(list(stages.made)))
    assert [stages.record(config)[1] for _ in range(2)] == [False, True]
    assert given == [["quantized", "evaluation", "runs"]]  # once, after it
