"""A run as flat tables and numbers: what a tracker keeps of it."""

from __future__ import annotations

from typing import Any

from qig.report.records import TOKEN_KINDS, Run

Table = tuple[tuple[str, ...], list[list[Any]]]
"""Column names, rows."""

SITE = ("block", "site", "estimator", "fallback", "nodes", "completeness", "exponent")
SAMPLE = ("task", "sample", "cluster", "type", "target", "answer", "score", "nll", "empty")
NUMBERS = ("score", "nll", "empty")


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
    """Flat metrics: ``TASK/accuracy``, ``TASK/type/TYPE``, ``TASK/sub/METRIC``, ``seconds/STAGE``, ``bytes/...``."""
    flat: dict[str, Any] = {}
    for task, metrics in run.record["metrics"].items():
        flat |= {f"{task}/{key}": value for key, value in metrics.items() if not isinstance(value, dict)}
        flat |= {f"{task}/type/{kind}": value for kind, value in metrics["by_type"].items()}
        flat |= {f"{task}/sub/{metric}": value for metric, value in metrics.get("sub_scores", {}).items()}
    flat |= {f"seconds/{stage}": value for stage, value in run.record["timings"].items()}
    flat |= {f"bytes/{key}": value for key, value in (run.record["memory"] | run.record["model_bytes"]).items()}
    return flat
