"""What stands below a table: how to read it, what it could have seen, and where printed numbers come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qig.experiment.gather import Found
from qig.report.metrics import metric_of
from qig.report.published.numbers import SOURCES
from qig.report.render import OUTLIERS
from qig.report.tables.layout import Section, title

if TYPE_CHECKING:
    import pandas as pd


def notes(found: Found, frame: pd.DataFrame, parts: list[Section], duels: pd.DataFrame) -> list[str]:
    """One paragraph each, in plain text."""
    sampled = [name for name in dict.fromkeys(frame["metric"]) if metric_of(name).field]
    texts = [_how(found, frame)] if sampled else []
    texts += [power_line(found, frame, name) for name in sampled]
    if not duels.empty:
        sure = int((duels["holm"] < 0.05).sum())
        texts.append(f"Of {len(duels)} groups with a single best value, the best is better than the second best in "
                     f"{sure} after Holm's correction (p below 0.05).")
    sigmas = sorted({row.run.outlier_sigma for row in found.rows} - {0.0})
    if sigmas:
        texts.append(OUTLIERS.format(sigma=", ".join(f"{sigma:g}" for sigma in sigmas)).removeprefix("† ").capitalize())
    if found.table.published and any(group[0].startswith("published") for part in parts for group in part.groups):
        texts.append(_published(found, parts))
    return [text for text in texts if text]


def power_line(found: Found, frame: pd.DataFrame, name: str) -> str:
    """The smallest true differences to the first control that this table could have seen; empty without any."""
    metric, control = metric_of(name), found.table.controls[0]
    every = frame.loc[(frame["metric"] == name) & frame[f"vs_{control}_holm"].notna(), f"vs_{control}_detectable"]
    seen = every.dropna()
    head = f"Power, {title(name).partition(',')[0]}: "
    blind = f"in {len(every) - len(seen)} of {len(every)} comparisons with {found.table.label('arm', control)} "
    blind += "the differences have no spread, so that nothing can be said"
    if seen.empty:
        return f"{head}{blind}." if len(every) else ""
    middle, low, high = (f"{metric.scale * value:.{metric.digits}f}" for value in
                         (seen.median(), seen.min(), seen.max()))
    unit = "points" if metric.unit == "%" else metric.unit
    return (f"{head}a true difference to {found.table.label('arm', control)} of {middle} {unit} (median of "
            f"{len(seen)} comparisons; {low} to {high}) would have been found with a probability of 80% at the 5% "
            f"level, before correction{'; ' + blind if len(seen) < len(every) else ''}.")


def _how(found: Found, frame: pd.DataFrame) -> str:
    samples = sorted({int(n) for n in frame["samples"] if n})
    seeds = max(int(n) for n in frame["seeds"])
    asked = any(row.run.config["evaluation"].get("tasks", True) for row in found.rows)
    clusters = "images" if asked else "documents"  # of running text
    drawn = f"calibration seeds ({seeds}) and {clusters}" if seeds > 1 else clusters
    best = ("Bold: best, underlined: second" + (", but for " + ", ".join(
        found.table.label("arm", arm) for arm in found.table.references) if found.table.references else "") + ". ")
    marks = best if frame["mark"].any() else ""
    return (f"{marks}Brackets: 95% intervals of paired differences, from a bootstrap over {drawn}; "
            f"{_span(samples)} samples a run. Star: p below 0.05 (t-test clustered by {clusters[:-1]}) "
            "after Holm's correction over all comparisons of this metric with that control.")


def _span(samples: list[int]) -> str:
    return f"{samples[0]:,}" if len(samples) == 1 else f"{samples[0]:,} to {samples[-1]:,}"


def _published(found: Found, parts: list[Section]) -> str:
    published = found.table.published
    models = {row.run.model: published.models.get(row.run.model, row.run.model) for row in found.rows}
    pairs = ", ".join(theirs if ours == theirs else f"{theirs} beside {ours}" for ours, theirs in models.items())
    text = (f"Published columns: as printed in {SOURCES[published.reported_by]}, table {published.table} ({pairs}); "
            "other models, benchmarks and samples than those measured here, shown for the order of the rows alone.")
    if any(cell.doubtful for part in parts for _, line in part.lines for cell in line):
        text += " ‡ contradicts other printed numbers, or cannot be a share of right answers: published_consistency."
    return text
