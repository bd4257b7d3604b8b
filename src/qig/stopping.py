"""Clean stops: a signal ends the work where it is, locks are given up, and what is finished stays."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = ("SIGTERM", "SIGUSR1", "SIGINT")
"""What schedulers send before they kill, and what Ctrl-C sends."""


class Stopped(BaseException):
    """Raised where the work stands; not an Exception, so that nothing takes it for a job that failed.

    ``code``: the exit status that says which signal it was, as shells have it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.code = 128 + number


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the context the first of these signals raises ``Stopped``; more of them change nothing."""
    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]

    def stop(number: int, _frame: FrameType | None) -> None:
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
