"""Signals stop the work once, in order, and leave everything as it was."""

from __future__ import annotations

import os
import signal

import pytest

from qig.stopping import Stopped, stoppable
from qig.store import Store


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_a_signal_gives_up_the_lock_and_keeps_what_is_finished(tmp_path, name):
    store, number = Store(tmp_path), getattr(signal, name)
    before = signal.getsignal(number)

    def build(folder):
        (folder / "block-0").write_text("done")
        os.kill(os.getpid(), number)
        raise AssertionError("it went on")

    with pytest.raises(Stopped, match=name) as stopped, stoppable():
        store.make("quantized", "k", build, resumable=True)
    assert stopped.value.code == 128 + number
    assert signal.getsignal(number) == before
    assert store.holder("quantized", "k") is None

    def resumed(folder):
        assert (folder / "block-0").read_text() == "done"

    store.make("quantized", "k", resumed, resumable=True)


def test_more_signals_do_not_disturb_the_end():
    ended = []
    with pytest.raises(Stopped, match="SIGTERM"), stoppable():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            ended.append(True)
    assert ended == [True]
