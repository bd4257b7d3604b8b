"""How a figure names the runs it shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qig.report.cells import METHODS, absent, plain
from qig.report.differing import differing
from qig.report.records import Run

if TYPE_CHECKING:
    import pandas as pd


def identity(run: Run) -> dict[str, Any]:
    """The columns that every figure's frame begins with."""
    return {"run": run.id, "method": run.method, "model": run.model, "setting": run.setting,
            "sigma": run.outlier_sigma}


def label(method: str, config: Mapping[str, Any]) -> str:
    """``QIG``, or with configuration keys that differ ``QIG, control=permuted, seed=1``."""
    shown = [f"{key.rpartition('.')[2]}={plain(value)}" for key, value in config.items() if not absent(value)]
    return ", ".join([METHODS.get(method, method), *shown])


def labels(runs: Sequence[Run]) -> list[str]:
    """A label a run, from its method and the configuration keys that tell the runs apart."""
    columns = differing(runs)
    return [label(run.method, {key: values[index] for key, values in columns.items()})
            for index, run in enumerate(runs)]


def model_title(model: str, sigma: float) -> str:
    """``tiny_qwen2_vl †`` for a model with synthetic outliers, as in the tables."""
    return f"{model} †" if sigma > 0 else model


def model_and_setting(model: str, sigma: float, setting: str) -> str:
    """``tiny_qwen2_vl † · W3A16``."""
    return f"{model_title(model, sigma)} · {setting.upper()}"


def dagger(titles: Iterable[str]) -> str:
    """A line, for below an axis, that says what the dagger at a model's name means; empty where none is shown."""
    return "\n† with synthetic, function-preserving outliers" if any("†" in title for title in titles) else ""


def subject(frame: pd.DataFrame) -> str:
    """Of which run a figure is: ``QIG, w3a16, tiny_qwen2_vl with synthetic outliers (σ = 0.65)``."""
    first = frame.iloc[0]
    outliers = f" with synthetic outliers (σ = {first.sigma:g})" if first.sigma else ""
    return f"{METHODS.get(first.method, first.method)}, {first.setting}, {first.model}{outliers}"
