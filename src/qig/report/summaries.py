"""A run as flat tables and numbers: what a tracker keeps of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from qig.report.metrics import METRICS
from qig.report.records import TOKEN_KINDS, Run

if TYPE_CHECKING:
    import pandas as pd

Table = tuple[tuple[str, ...], list[list[Any]]]
"""Column names, rows."""

SITE = ("block", "site", "estimator", "fallback", "nodes", "completeness", "exponent")
SAMPLE = ("task", "sample", "cluster", "type", "target", "answer", "score", "nll", "empty")
NUMBERS = ("score", "nll", "empty")
QUADRATURE = {"quadrature/most_nodes": "most_nodes", "quadrature/worst_residual": "completeness"}
STANDING = {
    "accuracy": "accuracy", "accuracy_vs_rtn": "vs_rtn", "accuracy_vs_16bit": "vs_16bit",
    "nll": "nll", "nll_vs_rtn": "nll_vs_rtn", "nll_vs_16bit": "nll_vs_16bit",
}  # fmt: skip
"""Names in a summary, and the columns of ``qig.report.comparison`` that they are."""


def sites(run: Run) -> Table:
    """A row a site: how its weights were found, their relative completeness residual, the chosen exponent."""
    return SITE, [[site[column] for column in SITE] for site in run.record["sites"]]


def search_curves(run: Run) -> Table:
    """A row an exponent of every site that was searched: its loss, and whether it was chosen."""
    rows = [[site["block"], site["site"], exponent, loss, exponent == site["exponent"]]
            for site in run.record["sites"] if site["exponents"]
            for exponent, loss in zip(site["exponents"], site["losses"], strict=True)]
    return ("block", "site", "exponent", "loss", "chosen"), rows


def sensitivity_shares(run: Run) -> Table:
    """A row a block, site and token kind: its share of all weight, which is that of an average calibration sample."""
    sensitivities = run.sensitivities
    rows = []
    for (block, site), weight in sorted(sensitivities.weights.items()):
        total = weight.sum(dtype="float64")
        rows += [[block, site, kind, float(weight[sensitivities.kinds == code].sum(dtype="float64") / total)]
                 for code, kind in TOKEN_KINDS.items()]
    return ("block", "site", "kind", "share"), rows


def per_sample(run: Run) -> Table:
    """A row an evaluated sample; what is no number is text, whatever a benchmark calls its samples."""
    rows = [[line[column] if column in NUMBERS or line[column] is None else str(line[column]) for column in SAMPLE]
            for line in run.samples]
    return SAMPLE, rows


def summary(run: Run) -> dict[str, Any]:
    """Flat metrics: ``TASK/accuracy``, ``TASK/type/TYPE``, ``TASK/sub/METRIC``, ``seconds/STAGE``, ``bytes/...``.

    With quadratures also ``quadrature/most_nodes`` of a site and ``quadrature/worst_residual`` of completeness.
    """
    flat: dict[str, Any] = {}
    for task, metrics in run.record["metrics"].items():
        flat |= {f"{task}/{key}": value for key, value in metrics.items() if not isinstance(value, dict)}
        flat |= {f"{task}/type/{kind}": value for kind, value in metrics["by_type"].items()}
        flat |= {f"{task}/sub/{metric}": value for metric, value in metrics.get("sub_scores", {}).items()}
    flat |= {f"seconds/{stage}": value for stage, value in run.record["timings"].items()}
    flat |= {f"bytes/{key}": value for key, value in (run.record["memory"] | run.record["model_bytes"]).items()}
    return flat | _known({name: METRICS[metric].whole(run, None) for name, metric in QUADRATURE.items()})


def standing(frame: pd.DataFrame) -> dict[str, float]:
    """What a grid is sorted by, of the comparison of a single run: means over its tasks, as in tables.

    ``accuracy``, a fraction of 1, and ``nll``, in nats; both also ``_vs_rtn`` and ``_vs_16bit``, where there is such a
    baseline.
    """
    (row,) = frame.to_dict("records")
    return _known({name: row[column] for name, column in STANDING.items()})


def _known(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if not math.isnan(value)}
