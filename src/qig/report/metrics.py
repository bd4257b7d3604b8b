"""What a table can show of a run: results of samples, which have intervals, and numbers of the run as a whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from qig.report.records import Run

Whole = Callable[[Run, Run | None], float]


@dataclass(frozen=True)
class Metric:
    """``field``: of an evaluated sample, or None for a number of the run, which ``whole(run, control)`` gives.

    Shown multiplied by ``scale`` with ``digits`` decimals; ``better``: 1 more is better, -1 less is, 0 neither.
    """

    title: str
    better: int
    scale: float = 1.0
    digits: int = 2
    field: str | None = None
    whole: Whole | None = None
    unit: str = ""


def _timing(*names: str) -> Whole:
    def read(run: Run, _: Run | None) -> float:
        if run.quantized_folder is None:
            return math.nan
        return sum(run.record["timings"].get(name) or 0.0 for name in names)

    return read


def _evaluation_seconds(run: Run, _: Run | None) -> float:
    return _number(run.record["timings"].get("evaluation"))


def _host_bytes(run: Run, _: Run | None) -> float:
    return _number(run.record["memory"].get("peak_host_bytes"))


def _model_bytes(run: Run, _: Run | None) -> float:
    return _number(run.record["model_bytes"].get("quantized" if run.quantized_folder else "sixteen_bit"))


def _perplexity(run: Run, _: Run | None) -> float:
    """``exp`` of the mean negative log-likelihood of a token of running text; NaN for a benchmark of questions."""
    return math.exp(run.record["metrics"][run.corpus]["nll"]) if run.corpus else math.nan


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _worst_completeness(run: Run, _: Run | None) -> float:
    """The largest relative residual of ``sum QIG = G(x) - G(x')`` among the sites that were integrated."""
    return max((abs(site["completeness"]) for site in _integrated(run)), default=math.nan)


def _nodes(run: Run, _: Run | None) -> float:
    used = [site["nodes"] for site in _integrated(run)]
    return sum(used) / len(used) if used else math.nan


def _most_nodes(run: Run, _: Run | None) -> float:
    return max((site["nodes"] for site in _integrated(run)), default=math.nan)


def _integrated(run: Run) -> Iterator[dict]:
    """Sites with a quadrature: neither another estimator nor the closed form of a linear site, which has no nodes."""
    return (site for site in run.record["sites"] if site.get("nodes") and site.get("completeness") is not None)


def _mean_rank_agreement(run: Run, control: Run | None) -> float:
    agreements = rank_agreements(run, control) if control is not None else []
    return sum(agreements) / len(agreements) if agreements else math.nan


def _worst_rank_agreement(run: Run, control: Run | None) -> float:
    return min(rank_agreements(run, control), default=math.nan) if control is not None else math.nan


def rank_agreements(run: Run, reference: Run) -> list[float]:
    """Spearman's correlation with the weights of ``reference``, one a site and calibration sample.

    Sites where either has the same weight for all tokens have no ranks and are left out.
    """
    import numpy as np
    from scipy.stats import rankdata

    if not (run.has_sensitivities and reference.has_sensitivities):
        return []
    ours, theirs = run.sensitivities, reference.sensitivities
    found = []
    for place in sorted(ours.weights.keys() & theirs.weights.keys()):
        for sample in np.unique(ours.sample):
            a, b = (one.weights[place][one.sample == sample] for one in (ours, theirs))
            if len(a) == len(b) and np.ptp(a) > 0 and np.ptp(b) > 0:
                found.append(float(np.corrcoef(rankdata(a), rankdata(b))[0, 1]))
    return found


METRICS = {
    "accuracy": Metric("accuracy", 1, 100, 1, field="score", unit="%"),
    "nll": Metric("NLL", -1, 1, 3, field="nll", unit="nats"),
    "perplexity": Metric("perplexity", -1, 1, 2, whole=_perplexity),
    "calibration_seconds": Metric("calibration", 0, 1, 1, whole=_timing("calibration", "quantization"), unit="s"),
    "attribution_seconds": Metric("attribution", 0, 1, 1, whole=_timing("attribution"), unit="s"),
    "search_seconds": Metric("search", 0, 1, 1, whole=_timing("search"), unit="s"),
    "rounding_seconds": Metric("rounding", 0, 1, 1, whole=_timing("rounding"), unit="s"),
    "evaluation_seconds": Metric("evaluation", 0, 1, 1, whole=_evaluation_seconds, unit="s"),
    "peak_host_bytes": Metric("peak of the process", 0, 2**-30, 2, whole=_host_bytes, unit="GiB"),
    "model_bytes": Metric("packed model", 0, 2**-20, 2, whole=_model_bytes, unit="MiB"),
    "nodes": Metric("nodes used", 0, 1, 1, whole=_nodes),
    "most_nodes": Metric("most nodes used", 0, 1, 0, whole=_most_nodes),
    "completeness": Metric("worst residual", -1, 1, 5, whole=_worst_completeness),
    "rank_agreement": Metric("rank agreement", 1, 1, 4, whole=_mean_rank_agreement),
    "worst_rank_agreement": Metric("least rank agreement", 1, 1, 4, whole=_worst_rank_agreement),
}
"""``rank_agreement`` is with the first control, which is the reference then. Costs are not ranked: they have no
interval here, and another machine has others."""


def metric_of(name: str) -> Metric:
    """``accuracy.TASK`` is the accuracy of one benchmark among several."""
    return METRICS[name.partition(".")[0]]
