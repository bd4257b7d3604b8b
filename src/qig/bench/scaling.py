"""How time and memory grow: with samples, with blocks, and with activations on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from tqdm import tqdm

from qig.bench.cost import PLAIN
from qig.bench.memory import Measured, Point, measure


def scaling(shape: str, setting: str, samples: Sequence[int], plain: Sequence[int], device: str) -> list[Measured]:
    """QIG at each number of samples, on the device and on disk, and at one more block; the plain way at a few."""
    base = Point(shape, "qig", setting, samples[0])
    points = [replace(base, samples=n, activations=place) for n in samples for place in ("device", "disk")]
    points += [replace(base, blocks=n) for n in (2, 4)]
    points += [replace(base, method=PLAIN, samples=n, tokens_per_batch=size) for n in plain for size in (None, 0)]
    return [measure(point, device) for point in tqdm(points, desc="points", unit="calibration", disable=None)]


def rows(measured: Sequence[Measured]) -> list[dict]:
    """A row a point: how it was run, tokens, seconds a block and peak MiB beyond the model."""
    return [
        {**asdict(one.point), "tokens": one.tokens, "seconds_a_block": one.cost.total, "peak_mib": one.peak / 2**20,
         "attribution_and_search": one.cost.attribution_and_search}
        for one in measured
    ]  # fmt: skip
