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

SLOW = (PLAIN, "release")  # every token through 32 points; linear in the samples, so that a few say what they cost


@dataclass(frozen=True)
class Turn:
    """One calibration of one repetition, of so many real tokens."""

    setting: str
    method: str
    repetition: int
    tokens: int
    cost: Cost

    def rate(self, seconds: float) -> float:
        """Seconds a block and 1,000 tokens."""
        return 1000 * seconds / self.tokens


def published(
    work: Work, few: Work, settings: Sequence[str], methods: Sequence[str], repetitions: int
) -> Iterator[list[Turn]]:
    """All methods one after the other, as often as asked for, so that a slow minute meets all of them.

    ``few`` are the samples of the ``SLOW`` methods, ``work`` those of all others. Yields all turns so far behind each
    repetition.
    """
    unknown = set(methods) - {PLAIN, *METHODS}
    if unknown:
        raise QigError(choices(min(unknown), (PLAIN, *METHODS), "method of the benchmark"))
    whole = list(product(settings, methods))
    turns: list[Turn] = []
    with tqdm(total=repetitions * len(whole), desc="calibrations", unit="calibration", disable=None) as progress:
        for i in range(repetitions):
            for setting, method in whole:
                chosen = few if method in SLOW else work
                turns.append(Turn(setting, method, i, chosen.tokens, cost(chosen, method, setting)))
                progress.update()
            yield turns


def medians(turns: Sequence[Turn]) -> list[dict]:
    """A row a setting and method: seconds a block and 1,000 tokens by stage, ratios to the plain implementation and to
    AWQ.
    """
    groups: dict[tuple[str, str], list[Turn]] = {}
    for turn in turns:
        groups.setdefault((turn.setting, turn.method), []).append(turn)
    both = {key: [one.rate(one.cost.attribution_and_search) for one in group] for key, group in groups.items()}
    total = {key: median(one.rate(one.cost.total) for one in group) for key, group in groups.items()}
    return [
        {
            "setting": setting,
            "method": method,
            "repetitions": len(group),
            "tokens": group[0].tokens,
            **{stage: median(one.rate(one.cost.stages[stage]) for one in group) for stage in STAGES},
            "unused_gradients": median(one.rate(one.cost.stages.get("unused gradients", 0.0)) for one in group),
            "total": total[setting, method],
            "attribution_and_search": median(both[setting, method]),
            "least": min(both[setting, method]),
            "most": max(both[setting, method]),
            "times_faster": (
                median(both[setting, PLAIN]) / median(both[setting, method]) if (setting, PLAIN) in both else None
            ),
            "to_awq": total[setting, method] / total[setting, "awq"] if (setting, "awq") in total else None,
            "nodes": dict(group[-1].cost.nodes),
        }
        for (setting, method), group in groups.items()
    ]
