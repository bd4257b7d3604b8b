"""Peak memory of one calibration beyond the model, in a process of its own."""

from __future__ import annotations

import gc
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import psutil
import torch

from qig.bench.cost import Cost, cost
from qig.bench.work import of_shape
from qig.blockwise.timing import PeakMemory


@dataclass(frozen=True)
class Point:
    """One calibration of random blocks of a published shape.

    Attributes:
        samples, blocks: how much is calibrated; ``tokens_per_batch``: of a micro-batch, 0 for all samples in one, as
            the release has it.
        activations: where hidden states wait.
    """

    shape: str
    method: str
    setting: str
    samples: int
    blocks: int = 1
    tokens_per_batch: int | None = None
    activations: str = "device"


@dataclass(frozen=True)
class Measured:
    """``peak``: highest resident bytes, or bytes allocated on an accelerator, above those with the model loaded."""

    point: Point
    tokens: int
    peak: int
    cost: Cost


def measure(point: Point, device: str) -> Measured:
    """The point in a fresh process, so that nothing that others left counts."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure, point, device, torch.get_num_threads()).result()


def _measure(point: Point, device: str, threads: int) -> Measured:
    torch.set_num_threads(threads)
    overrides = [f"calibration.samples={point.samples}", f"memory.activations={point.activations}"]
    if point.tokens_per_batch is not None:
        overrides.append(f"calibration.tokens_per_batch={point.tokens_per_batch or 10**9}")
    work = of_shape(point.shape, point.blocks, overrides, torch.device(device))
    cost(of_shape(point.shape, 1, [*overrides[1:], "calibration.samples=1"], work.device), "awq", point.setting)
    gc.collect()
    copied = sum(value.nbytes for value in work.original.model.parameters())  # what is quantized stands beside it
    on_device = work.device.type == "cuda"
    before = torch.cuda.memory_allocated(work.device) if on_device else psutil.Process().memory_info().rss
    with PeakMemory(work.device) as memory:
        found = cost(work, point.method, point.setting)
    peak = memory.device_bytes if on_device else memory.host_bytes
    return Measured(point, work.tokens, peak - before - copied, found)
