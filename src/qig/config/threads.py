"""How many threads a run computes with when the configuration leaves it open."""

from __future__ import annotations

import os


def available_threads() -> int:
    """What ``threads: null`` stands for: ``OMP_NUM_THREADS``, or the cores that this process may run on.

    The number decides the order of sums, and so the last bits of a result: it is fixed before a run gets its identity.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # OpenMP allows a number for each level
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
