"""What became of one input: accepted, refused with one message, or a defect."""

from __future__ import annotations

import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from qig.__main__ import message

SECONDS = 20  # an input that takes longer hangs


class Hang(BaseException):
    """No Exception, so that nothing on the way takes it for one."""


class Defect(Exception):
    """An input was accepted that must not be."""


@dataclass
class Outcomes:
    """Counts, and for each kind of defect (its last own line of code and its error) the shortest input."""

    accepted: int = 0
    refused: int = 0
    messages: Counter[str] = field(default_factory=Counter)
    defects: dict[str, str] = field(default_factory=dict)

    @property
    def inputs(self) -> int:
        return self.accepted + self.refused

    def of(self, given: object, action: Callable[[], None]) -> None:
        """Run one input; nothing is raised."""
        try:
            with within(SECONDS):
                action()
            self.accepted += 1
        except Hang as error:
            self.refused += 1
            self._keep(f"{_place(error)}: {error}", given)
        except Exception as error:
            self.refused += 1
            told = message(error)
            if told is None:
                self._keep(f"{_place(error)}: {type(error).__name__}", given)
            elif not told.strip():
                self._keep(f"{type(error).__name__} without a message", given)
            else:
                self.messages[type(error).__name__] += 1

    def _keep(self, kind: str, given: object) -> None:
        shown = repr(given)
        if kind not in self.defects or len(shown) < len(self.defects[kind]):
            self.defects[kind] = shown


@contextmanager
def within(seconds: float) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hang(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if f"{Path('src') / 'qig'}" in frame.filename]
    last = (own or frames)[-1]
    return f"{Path(last.filename).name}:{last.name}"
