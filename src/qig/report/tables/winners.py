"""Where a table marks a best cell: is it better than the second best, after Holm's correction over the table?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from qig.experiment.gather import Found
from qig.report.metrics import metric_of
from qig.report.statistics import compare, detectable
from qig.report.tables.cells import correct
from qig.report.tables.paired import aligned
from qig.report.tables.places import Place, places, run_ids

if TYPE_CHECKING:
    import pandas as pd


def winners(found: Found, frame: pd.DataFrame) -> pd.DataFrame:
    """Where a table marks a best cell: is it better than the second best?

    One line a metric of samples and group (all keys but the last row key): ``best``, ``second``, the paired difference
    with interval, ``p``, ``holm`` (over the metric's groups), ``detectable``. A tie has no winner.
    """
    import pandas as pd

    *context, last = [*found.table.columns, *found.table.rows]
    by_keys = {tuple(place.keys[key] for key in (*context, last)): place for place in places(found)}
    lines = []
    for name in dict.fromkeys(frame["metric"]):
        if not (metric_of(name).field and metric_of(name).better):
            continue
        part = []
        groups: dict[tuple, list[tuple[float, Place]]] = {}
        for line in frame[(frame["metric"] == name) & frame["rank"].notna()].to_dict("records"):
            key = tuple(line[name] for name in context)
            groups.setdefault(key, []).append((line["rank"], by_keys[*key, line[last]]))
        for key, ranked in groups.items():
            ranked.sort(key=lambda pair: pair[0])
            if len(ranked) > 1 and ranked[1][0] > 1:
                duel = _duel(name, ranked[0][1], ranked[1][1], last)
                part.append({**dict(zip(context, key, strict=True)), "metric": name, **duel})
        correct(part, "p", "holm")
        lines += part
    return pd.DataFrame(lines)


def _duel(name: str, best: Place, second: Place, last: str) -> dict[str, Any]:
    count = max(len(best.runs), len(second.runs))
    # A run that no seed changes stands against each of the other's seeds.
    first, other = (place.runs * (count if len(place.runs) == 1 else 1) for place in (best, second))
    both, clusters, strata = aligned((*first, *other), metric_of(name).field, name.partition(".")[2] or None)
    found = compare(both[:count] - both[count:], clusters, strata)
    return {"best": best.keys[last], "second": second.keys[last], "difference": found.mean, "low": found.low,
            "high": found.high, "p": found.p, "holm": math.nan, "detectable": detectable(found.error, found.df),
            "runs": " ".join(run_ids(first)), "second_runs": " ".join(run_ids(other))}
