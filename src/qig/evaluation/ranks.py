"""The processes that evaluate together: each works on its share, all know the result, one writes.

lmms-eval would deal out documents; here whole batches are dealt out, so that the padding of a batch, and with it every
bit of an answer, is that of a single process. Its own evaluator runs in every process as if alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from qig.errors import EvaluationError, QigError

Item = TypeVar("Item")
Result = TypeVar("Result")

_ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
# A rank waits for the slowest one, and for the first to download a dataset.
_TIMEOUT = timedelta(hours=24)


@dataclass(frozen=True)
class Ranks:
    """This process is number ``rank`` of ``size``."""

    rank: int = 0
    size: int = 1

    @classmethod
    def of_environment(cls) -> Ranks:
        """As ``torchrun`` or ``accelerate launch`` started this process; alone if neither did.

        Raises:
            EvaluationError: they do not know of each other, and each would do everything.
        """
        started = int(os.environ.get("WORLD_SIZE", "1"))
        if started == 1:
            return cls()
        import torch
        from accelerate import PartialState

        # Without an accelerator accelerate takes each process for a single one, unless it is told.
        state = PartialState(cpu=not torch.accelerator.is_available(), timeout=_TIMEOUT)
        if state.num_processes != started:
            raise EvaluationError(f"{started} processes were started, but accelerate sees {state.num_processes}")
        return cls(state.process_index, state.num_processes)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def spread(self, items: Sequence[Item], work: Callable[[Item], Result]) -> list[Result]:
        """``[work(item) for item in items]`` in every process, each having done every ``size``-th item."""
        mine = [work(items[index]) for index in range(self.rank, len(items), self.size)]
        if self.size == 1:
            return mine
        from torch.distributed import all_gather_object

        parts: list = [None] * self.size
        all_gather_object(parts, mine)
        return [parts[index % self.size][index // self.size] for index in range(len(items))]

    def once(self, make: Callable[[], Result]) -> Result:
        """``make()`` of the first process, in every process; so is the QigError that it raises."""
        if self.size == 1:
            return make()
        from torch.distributed import broadcast_object_list

        told: list = [None, None]
        if self.is_main:
            try:
                told[0] = make()
            except QigError as error:
                told[1] = error
        broadcast_object_list(told, src=0)
        if told[1] is not None:
            raise told[1]
        return told[0]

    def in_turn(self, make: Callable[[], Result]) -> Result:
        """``make()`` in every process, first in the first one, which may fill a cache."""
        if self.size == 1:
            return make()
        from accelerate import PartialState

        with PartialState().main_process_first():
            return make()

    def leave(self) -> None:
        """End this process's part in the group; one that exits without may be aborted on its way out (pytorch#179291).

        What all processes do together is behind them then.
        """
        if self.size > 1:
            from torch.distributed import destroy_process_group

            destroy_process_group()

    @staticmethod
    @contextmanager
    def each_alone() -> Iterator[None]:
        """Hides from lmms-eval that there are other processes."""
        hidden = {name: os.environ.pop(name) for name in _ENVIRONMENT if name in os.environ}
        try:
            yield
        finally:
            os.environ.update(hidden)


ALONE = Ranks()
