"""The same bits from the same configuration: seeds, threads, deterministic kernels, and a list of what has none."""

from __future__ import annotations

import os
import random
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

WITHOUT = re.compile(r"(\S+) does not have a deterministic implementation")
"""What torch says, as a warning or an error, of an operation that has no deterministic form."""


def prepare(seed: int, threads: int, *, strict: bool = False) -> None:
    """Seed Python, NumPy and torch; set torch's threads and choose deterministic kernels, for this process.

    ``strict``: an operation without a deterministic form is a RuntimeError instead of a warning. It takes that for
    torch to choose the deterministic backward pass of fused attention.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when its first handle is made
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=not strict)
    torch.backends.cudnn.benchmark = False


@contextmanager
def noted() -> Iterator[set[str]]:
    """The names of the operations without a deterministic form that are used inside; their warnings are not shown."""
    found: set[str] = set()
    with warnings.catch_warnings():
        let_through()
        shown = warnings.showwarning

        def note(message: Warning | str, *details, **named) -> None:
            said = WITHOUT.match(str(message))
            if said:
                found.add(said[1])
            else:
                shown(message, *details, **named)

        warnings.showwarning = note
        yield found


def let_through() -> None:
    """Past every filter that silences warnings, those of operations without a deterministic form."""
    warnings.filterwarnings("always", message=WITHOUT.pattern)


def strictly(seed: int, threads: int, work: Callable[[], None]) -> set[str]:
    """Do the work with deterministic forms alone; if an operation has none, once more with what there is.

    Returns the operations without a deterministic form. What ``work`` leaves halfway must not stop its second attempt.
    """
    prepare(seed, threads, strict=True)
    try:
        work()
        return set()
    except RuntimeError as error:
        lacking = WITHOUT.match(str(error))
        if lacking is None:
            raise
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)
    prepare(seed, threads)
    with noted() as found:
        work()
    return found | {lacking[1]}
