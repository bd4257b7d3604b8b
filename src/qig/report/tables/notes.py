"""What stands below a table: what was measured, how to read it, what it could have seen, whence printed numbers are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qig.experiment.gather import Found
from qig.report.metrics import metric_of
from qig.report.published.numbers import SOURCES, TRANSCRIBED
from qig.report.records import PASSAGES, QUESTIONS, Nouns, Run, limited, nouns
from qig.report.tables.layout import Section, title
from qig.report.tables.printed import left_out

if TYPE_CHECKING:
    import pandas as pd


def notes(found: Found, frame: pd.DataFrame, parts: list[Section], duels: pd.DataFrame) -> list[str]:
    """One paragraph each, in plain text."""
    sampled = [name for name in dict.fromkeys(frame["metric"]) if metric_of(name).field]
    texts = [measured(found), _marks(found, frame)]
    texts += [_how(found, frame)] if sampled else []
    texts += [power_line(found, frame, name) for name in sampled]
    if not duels.empty:
        sure = int((duels["holm"] < 0.05).sum())
        texts.append(f"A single value is best in {len(duels)} column(s) of rivals; it is better than the second best "
                     f"in {sure} of them after Holm's correction (p below 0.05).")
    sigmas = sorted({row.run.outlier_sigma for row in found.rows} - {0.0})
    if sigmas:
        texts.append("Where model.outliers.sigma is above 0 (here "
                     f"{', '.join(f'{sigma:g}' for sigma in sigmas)}), synthetic outliers stand in the model, which "
                     "computes the same function without them.")
    absent = left_out(found) if found.table.published else []
    if absent or any(group[0].startswith("published") for part in parts for group in part.groups):
        texts.append(_published(found, parts, absent))
    if found.sweeps:
        texts.append(_made_by(found))
    return [text for text in texts if text]


def _made_by(found: Found) -> str:
    """The commits of the code that made the runs, where they are several."""
    states: dict[str, set[str]] = {}
    for run in (row.run for row in found.rows):
        git = (run.record.get("environment") or {}).get("git") or {}
        state = (git.get("commit") or "unknown")[:10] + (" with changes" if git.get("dirty") else "")
        states.setdefault(state, set()).add(run.id)
    if len(states) < 2:
        return ""
    counted = ", ".join(f"{state} ({len(runs)} run{'s' if len(runs) > 1 else ''})" for state, runs in states.items())
    return f"The runs were made by the code of several commits, whose results need not be comparable: {counted}."


def measured(found: Found) -> str:
    """What all rows share and the table does not say: models, setting, calibration set, benchmark; and the arms."""
    table = found.table
    named = {*table.rows, *table.columns, *table.over}
    runs = [row.run for row in found.rows if row.arm not in table.references]
    said = []
    if "model" not in named:
        said += sorted({run.model for run in runs})
    if "quant" not in named:
        said += sorted({run.setting.upper() for run in runs})
    drawn = {(run.config["calibration"]["kind"], len(samples)) for run in runs
             if (samples := (run.record["stages"].get("calibration") or {}).get("samples"))}
    if drawn and "calibration.samples" not in named:
        kinds = ", ".join(sorted({kind for kind, _ in drawn}))
        said.append(f"{_span(sorted({count for _, count in drawn}))} calibration samples ({kinds})")
    said += [_benchmarks(runs), limited(runs)]
    if nouns(runs) is PASSAGES and "accuracy" in table.metrics:
        said.append("accuracy: next tokens that the model holds most likely")
    arms = "; ".join(f"{table.label('arm', arm)}: {words}" for arm, words in found.arms.items()
                     if not table.shown or arm in {*table.shown, *table.controls})
    return f"Measured: {', '.join(one for one in said if one)}." + (f" Arms: {arms}." if arms else "")


def _benchmarks(runs: Sequence[Run]) -> str:
    """``qig_digitgrid: 2,200 questions on 200 images``; of the runs with the most."""
    found: dict[str, tuple[int, int]] = {}
    texts = {run.corpus for run in runs}
    for run in {run.record["stages"]["evaluation"]: run for run in runs}.values():
        for task, samples in run.by_task.items():
            clusters = len({line["cluster"] for line in samples.values()})
            found[task] = max(found.get(task, (0, 0)), (len(samples), clusters))
    return ", ".join(f"{task}: {_counted(samples, clusters, PASSAGES if task in texts else QUESTIONS)}"
                     for task, (samples, clusters) in found.items())


def _counted(samples: int, clusters: int, called: Nouns) -> str:
    if clusters == samples:
        return f"{samples:,} samples"
    return f"{samples:,} {called.samples} {called.preposition} {clusters:,} {called.clusters}"


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
    clusters = nouns([row.run for row in found.rows]).clusters
    drawn = f"calibration seeds ({seeds}) and {clusters}" if seeds > 1 else clusters
    references = _references(found)
    untested = f", {references} apart" if references else ""
    return (f"Differences: the row's arm minus the control, in points or nats. Brackets: their 95% intervals, paired "
            f"by sample, from a bootstrap over {drawn}; {_span(samples)} evaluated samples a run. Star: p below 0.05 "
            f"(t-test clustered by {drawn}) after Holm's correction over all comparisons of this metric with that "
            f"control{untested}.")


def _marks(found: Found, frame: pd.DataFrame) -> str:
    if not frame["mark"].any():
        return ""
    references = _references(found)
    return ("Bold: best of the rivals as printed, underlined: second"
            + (f"; {references} not ranked" if references else "") + ".")


def _references(found: Found) -> str:
    return " and ".join(found.table.label("arm", arm) for arm in found.table.references)


def _span(samples: list[int]) -> str:
    return f"{samples[0]:,}" if len(samples) == 1 else f"{samples[0]:,} to {samples[-1]:,}"


def _published(found: Found, parts: list[Section], absent: list[str]) -> str:
    published = found.table.published
    models = {row.run.model: published.models.get(row.run.model, row.run.model) for row in found.rows}
    pairs = ", ".join(theirs if ours == theirs else f"{theirs} beside {ours}" for ours, theirs in models.items())
    source = SOURCES[published.reported_by]
    if published.reported_by in TRANSCRIBED:
        source += " (as transcribed by others, not checked against the printed page)"
    alike = all(ours == theirs for ours, theirs in models.items())
    beside = "other models, benchmarks and samples than those measured here, shown for the order of the rows alone."
    if alike:
        beside = "the same models; calibration samples, prompts and versions need not be those measured here."
    text = f"Published columns: {source}, table {published.table} ({pairs}); {beside}"
    if absent:
        text += f" Left out: {'; '.join(absent)}."
    if any(cell.doubtful for part in parts for _, line in part.lines for cell in line):
        text += " ‡ contradicts other printed numbers, or cannot be a share of right answers: published_consistency."
    return text
