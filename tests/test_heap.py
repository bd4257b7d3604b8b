import platform

import psutil
import pytest

from qig.heap import give_back
from qig.models import checkpoint
from qig.stages import Stages


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


def test_a_run_gives_back_what_it_took_to_compute_it(compose, tmp_path, monkeypatch):
    config = compose("model=tiny_internvl", "method=rtn", "tracking=none", f"store={tmp_path}")
    given, made = [], []

    def make(stages, folder, *rest):
        made.append(len(given))
        (folder / "record.json").write_text("{}")

    monkeypatch.setattr("qig.stages.give_back", lambda: given.append(len(made)))
    monkeypatch.setattr(Stages, "_make", make)
    stages = Stages.of(config, checkpoint.content_hash(checkpoint.resolve(config.model.path)))
    assert [stages.record(config)[1] for _ in range(2)] == [False, True]
    assert (made, given) == ([0], [1])  # once, after it
