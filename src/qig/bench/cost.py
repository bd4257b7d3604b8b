"""Seconds of one calibration, by stage: of this package, and of the published cost structure."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from qig.bench.work import Work
from qig.blockwise.activations import Activations
from qig.blockwise.run import BlockPass
from qig.blockwise.timing import worked
from qig.errors import QigError

PLAIN = "plain"
METHODS = {  # no warm-up: the first five sites of a model cost nothing, all others do
    "release": ("method=qig_release", "sensitivity.warmup_sites=0"),
    "qig": ("method=qig",),
    "awq": ("method=awq",),
}
STAGES = ("capture", "attribution", "search", "rounding", "propagation")


@dataclass(frozen=True)
class Cost:
    """Seconds of work a block, as ``qig.blockwise.timing.worked`` has them.

    Attributes:
        stages: mean over the blocks; ``total``: the whole pass over the number of blocks.
        nodes: by site, the quadrature nodes of the last block.
    """

    stages: Mapping[str, float]
    total: float
    nodes: Mapping[str, int | None]

    @property
    def attribution_and_search(self) -> float:
        return self.stages["attribution"] + self.stages["search"]


def cost(work: Work, method: str, setting: str) -> Cost:
    """One calibration by ``PLAIN`` or one of ``METHODS``, of a fresh copy of the model."""
    return _plain(work, setting) if method == PLAIN else _ours(work, method, setting)


def configuration(method: str, setting: str) -> tuple[str, ...]:
    """Overrides that make the method; the plain implementation computes what ``release`` does."""
    return (f"quant={setting}", *METHODS["release" if method == PLAIN else method])


def _ours(work: Work, method: str, setting: str) -> Cost:
    config, loaded = work.under(*configuration(method, setting)).config, work.model()
    with TemporaryDirectory() as folder:
        activations = Activations(work.device, config.memory.activations, Path(folder) / "activations")
        one = BlockPass(loaded, work.batches, config, activations, Path(folder))
        start = worked(work.device)
        records = one.run()
        total = worked(work.device) - start
    nodes = {site["site"]: site["nodes"] for site in records[-1]["sites"]}
    return Cost(_mean([record["work_seconds"] for record in records]), total / work.blocks, nodes)


def _plain(work: Work, setting: str) -> Cost:
    config, loaded = work.under(*configuration(PLAIN, setting)).config, work.model()
    grid, integers = config.quant.weights, config.quant.activations
    clock, integer_bits = partial(worked, work.device), integers.bits if integers else None
    one = oracle().Published(grid.bits, grid.symmetric, grid.group_size, integer_bits, warm_up=0, clock=clock)
    start = clock()
    one.run(loaded.model, loaded.blocks, work.batches)
    total = clock() - start
    nodes = dict.fromkeys(oracle().SITES, oracle().NODES)
    return Cost({**_mean(one.seconds), "unused gradients": one.unused["gradients"] / work.blocks},
                total / work.blocks, nodes)  # fmt: skip


def _mean(blocks: list[dict[str, Any]]) -> dict[str, float]:
    return {stage: sum(block.get(stage, 0.0) for block in blocks) / len(blocks) for stage in STAGES}


def oracle() -> ModuleType:
    """The plain implementation, which stands among the tests.

    Raises:
        QigError: the package does not run from a clone of the repository.
    """
    file = Path(__file__).parents[3] / "tests" / "oracles" / "published_cost.py"
    if not file.is_file():
        raise QigError(f"the plain implementation is {file}, which is not there; run qig-bench from a clone")
    spec = importlib.util.spec_from_file_location("qig_published_cost", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
