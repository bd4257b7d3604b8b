"""The C library's heap: what a run has freed goes back to the system."""

from __future__ import annotations

import ctypes
import gc
import platform
import sys


def give_back() -> None:
    """Hand memory that nothing uses any more back to the system.

    glibc keeps it, over a gigabyte after a run with pretrained weights, so that a sweep's process seems to grow with
    each run; and joblib replaces a worker that has grown by 300 MB, which costs its imports anew. Other C libraries
    hand it back themselves. Likewise torch keeps a graphics card's, which other processes on it then lack.
    """
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
