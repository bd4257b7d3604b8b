"""The printed numbers, and those that stand beside a cell of our tables."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from qig.errors import ConfigError, choices
from qig.experiment.spec import Published

FILE = Path(__file__).with_name("paper_numbers.csv")
SOURCES = {
    "qig": "QIG, arXiv 2603.17809", "mbq": "MBQ, arXiv 2412.19509v2", "bfq": "Balanced Fitting", "subrot": "SubRot",
    "splitq": "SplitQ, arXiv 2605.19929", "quant_experts": "Quant Experts, arXiv 2602.24059",
    "vlmq": "VLMQ, arXiv 2508.03351v2", "vlm_ptq": "VLM-PTQ (CVPR 2026)",
}  # fmt: skip
TRANSCRIBED = ("qig", "splitq", "quant_experts", "vlmq", "vlm_ptq")
"""Sources known from transcriptions or notes by others."""
TITLES = {"vizwiz_vqa_val": "VizWiz", "mmmu_val": "MMMU", "chartqa": "ChartQA", "ai2d": "AI2D",
          "scienceqa_img": "ScienceQA", "average": "average", "gpu_hours": "GPU hours", "seedbench": "SEED-Bench",
          "ocrbench": "OCRBench", "textvqa_val": "TextVQA"}

NO_BENCHMARK = ("gpu_hours", "minutes_analysis", "minutes_search", "minutes_total", "seconds_total", "ms", "speedup",
                "memory_gb", "fp_correct_to_wrong_pct", "fp_wrong_to_correct_pct", "fixes_per_new_error")
"""Metrics that are neither a benchmark's score nor an average of such."""


@dataclass(frozen=True)
class Number:
    """One printed number: ``value`` keeps its digits."""

    paper: str
    reported_by: str
    table: str
    model: str
    setting: str
    method: str
    variant: str
    metric: str
    value: str
    note: str

    @property
    def doubtful(self) -> bool:
        """Whether the printed number contradicts other printed numbers, or cannot be what it says it is."""
        return "INCONSISTENT" in self.note or "off the 1/" in self.note


@cache
def numbers() -> tuple[Number, ...]:
    """All rows, in the order of the file."""
    with FILE.open(encoding="utf-8", newline="") as stream:
        rows = [{key: value for key, value in row.items() if key != "is_computed_by_us"}
                for row in csv.DictReader(stream)]
    return tuple(Number(**row) for row in rows)


@cache
def _index() -> dict[tuple[str, ...], Number]:
    return {(one.reported_by, one.table, one.model, one.setting, one.method, one.variant, one.metric): one
            for one in numbers()}


def counterpart(published: Published, arm: str | None, model: str, setting: str, metric: str,
                keys: Mapping[str, Any]) -> Number | None:
    """The printed number of the table's ``metric`` that corresponds to a cell of ours, or ``None``.

    ``keys``: the cell's row and column keys, which a variant may name.
    """
    wanted = published.arms.get(arm)
    if wanted is None:
        return None
    wanted = {"method": wanted} if isinstance(wanted, str) else wanted
    variant = wanted.get("variant", "")
    return _index().get((
        published.reported_by, published.table, published.models.get(model, model),
        setting if published.setting is None else published.setting,
        wanted["method"], variant % keys if "%(" in variant else variant, metric,
    ))  # fmt: skip


def check_published(published: Published) -> None:
    """ConfigError when the file has no such table or metric."""
    if published.reported_by not in SOURCES:
        raise ConfigError(choices(published.reported_by, SOURCES, "source of published numbers"))
    own = [one for one in numbers() if one.reported_by == published.reported_by]
    tables = {one.table for one in own}
    if published.table not in tables:
        raise ConfigError(choices(published.table, tables, f"table of {published.reported_by}"))
    metrics = {one.metric for one in own if one.table == published.table}
    for metric in published.metrics:
        if metric not in metrics:
            raise ConfigError(choices(metric, metrics, f"metric in {published.reported_by}'s {published.table}"))
