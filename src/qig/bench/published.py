"""This package beside the published cost structure: the same blocks, samples and process, turn by turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import median

from tqdm import tqdm

from qig.bench.cost import METHODS, PLAIN, STAGES, Cost, cost
from qig.bench.work import Work
from qig.errors import QigError, choices

TARGETS = {"w3a16": 8.0, "w4a8": 5.0}
"""Attribution and search of ``qig``: at least so many times as fast as the plain implementation."""


@dataclass(frozen=True)
class Turn:
    """One calibration of one repetition."""

    setting: str
    method: str
    repetition: int
    cost: Cost


def published(work: Work, settings: Sequence[str], methods: Sequence[str], repetitions: int) -> Iterator[list[Turn]]:
    """All methods one after the other, as often as asked for, so that a slow minute meets all of them.

    Yields all turns so far behind each repetition.
    """
    unknown = set(methods) - {PLAIN, *METHODS}
    if unknown:
        raise QigError(choices(min(unknown), (PLAIN, *METHODS), "method of the benchmark"))
    whole = list(product(settings, methods))
    turns: list[Turn] = []
    with tqdm(total=repetitions * len(whole), desc="calibrations", unit="calibration", disable=None) as progress:
        for i in range(repetitions):
            for setting, method in whole:
                turns.append(Turn(setting, method, i, cost(work, method, setting)))
                progress.update()
            yield turns


def medians(turns: Sequence[Turn]) -> list[dict]:
    """A row a setting and method: seconds a block by stage, and ratios to the plain implementation and to AWQ."""
    groups: dict[tuple[str, str], list[Cost]] = {}
    for turn in turns:
        groups.setdefault((turn.setting, turn.method), []).append(turn.cost)
    both = {key: median(one.attribution_and_search for one in costs) for key, costs in groups.items()}
    total = {key: median(one.total for one in costs) for key, costs in groups.items()}
    return [
        {
            "setting": setting,
            "method": method,
            "repetitions": len(costs),
            **{stage: median(one.stages[stage] for one in costs) for stage in STAGES},
            "unused_gradients": median(one.stages.get("unused gradients", 0.0) for one in costs),
            "total": total[setting, method],
            "attribution_and_search": both[setting, method],
            "least": min(one.attribution_and_search for one in costs),
            "most": max(one.attribution_and_search for one in costs),
            "times_faster": both[setting, PLAIN] / both[setting, method] if (setting, PLAIN) in both else None,
            "to_awq": total[setting, method] / total[setting, "awq"] if (setting, "awq") in total else None,
            "nodes": dict(costs[-1].nodes),
        }
        for (setting, method), costs in groups.items()
    ]
