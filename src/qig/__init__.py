"""QIG: fine-grained post-training quantization of large vision-language models."""

import os

__version__ = "0.1.0"

# How long a thread of GNU's OpenMP spins while it waits for another; it reads this once, when torch is loaded. By its
# own choice two threads took 50 times as long where another process held one of two cores (results/benchmarks/LOG.md).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
