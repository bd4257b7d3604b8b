"""One W&B run for a run of the store, whoever makes it and however often."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf

from offline_wandb import exit_codes, kind, offline_records, values
from qig.errors import EvaluationError
from qig.runner import Outcome
from qig.tracked import Place, log_stored, tracked
from qig.tracking import ENVIRONMENT

Store = runpy.run_path(str(Path(__file__).parent / "report" / "fabricated.py"))["Store"]


@pytest.fixture
def config(compose, tmp_path, monkeypatch):
    from qig.config.validation import resolve

    monkeypatch.delenv("WANDB_MODE", raising=False)
    for variable in ENVIRONMENT:  # set for the whole process by the first tracker
        monkeypatch.setenv(variable, ENVIRONMENT[variable])
    return resolve(compose("model=tiny_internvl", "method=qig", "seed=3", f"tracking.dir={tmp_path / 'track'}"))


@pytest.fixture
def outcome(tmp_path):
    store = Store(tmp_path / "store")
    store.run("full", method="none", quantized=False, scores=[(1, 1, 1, 1)])
    store.run("near", method="rtn", scores=[(0, 0, 1, 0)])
    return Outcome(store.run("ours", scores=[(1, 1, 0, 1)]), True, {"16 bit": "full", "rtn": "near"}, store.root)


def job(sweep=None, words=("method=qig", "seed=3")):
    """Hydra's part of a job's configuration."""
    mode = RunMode.RUN if sweep is None else RunMode.MULTIRUN
    return OmegaConf.create({"mode": mode, "sweep": {"dir": f"out/{sweep}"}, "overrides": {"task": list(words)}})


def folders(config):
    return sorted(Path(config.tracking.dir).glob("wandb/offline-run-*"))


def read(config):
    return {"tracking": {"dir": config.tracking.dir}}


def test_a_run_of_the_store_is_logged_under_its_own_id_once(config, outcome, monkeypatch):
    log_stored(config, outcome, job("grid"))
    started = next(record.run for record in offline_records(read(config)) if kind(record) == "run")
    assert (started.run_id, started.run_group, started.job_type) == ("ours", "grid", "qig")
    assert started.display_name == "tiny_internvl w3a16 qig seed=3"
    summary = {}
    for record in offline_records(read(config)):
        if kind(record) == "summary":
            summary |= values(record.summary.update)
    assert (summary["accuracy"], summary["accuracy_vs_rtn"], summary["accuracy_vs_16bit"]) == (0.75, 0.5, -0.25)
    monkeypatch.setattr("qig.tracked.tracker", None)  # nothing is started again: not in this sweep, nor by a single job
    log_stored(config, outcome, job("grid"))
    log_stored(config, outcome, job())
    prepared = SimpleNamespace(config=config, key="ours", cached=True, run=lambda: outcome)
    assert tracked(prepared, job("grid")) is outcome
    assert len(folders(config)) == 1


def ids(config):
    """Of W&B runs; two folders of one, made within a second, have names of their own."""
    return sorted({file.stem.removeprefix("run-") for folder in folders(config) for file in folder.glob("run-*.wandb")})


def test_another_sweep_takes_the_run_over_and_a_named_group_keeps_its_own(config, outcome):
    log_stored(config, outcome, job("first"))
    log_stored(config, outcome, job("second"))
    assert ids(config) == ["ours"] and Place.of(config, "ours", job("second")).is_noted
    assert not Place.of(config, "ours", job("first")).is_noted
    for group in ("mine", "theirs"):
        named = replace(config, tracking=replace(config.tracking, group=group))
        log_stored(named, outcome, job("third"))
        log_stored(named, outcome, job("fourth"))
    assert len(ids(config)) == 3 and all(name.startswith("ours") for name in ids(config))


def test_another_project_or_mode_is_another_place(config, outcome):
    Place.of(config, "ours", job()).note()
    assert Place.of(config, "ours", job()).is_noted
    for change in ({"project": "other"}, {"entity": "team"}, {"mode": "online"}):
        assert not Place.of(replace(config, tracking=replace(config.tracking, **change)), "ours", job()).is_noted


@pytest.mark.parametrize("change", [{"kind": "none"}, {"mode": "disabled"}])
def test_without_tracking_nothing_is_started(config, outcome, monkeypatch, change):
    monkeypatch.setattr("qig.tracked.tracker", None)
    config = replace(config, tracking=replace(config.tracking, **change))
    log_stored(config, outcome, job())
    prepared = SimpleNamespace(config=config, key="ours", cached=False, run=lambda: outcome)
    assert tracked(prepared, job()) is outcome
    assert not Path(config.tracking.dir).exists()


def test_a_run_that_fails_is_logged_as_failed_and_not_noted(config):
    def fail():
        raise EvaluationError("30 of 30 answers are empty")

    with pytest.raises(EvaluationError):
        tracked(SimpleNamespace(config=config, key="ours", cached=False, run=fail), job())
    assert exit_codes(read(config)) == [1] and not Place.of(config, "ours", job()).is_noted


def test_a_run_that_cannot_be_compared_is_logged_without_that(config, outcome, caplog):
    other = Store(outcome.store)
    other.run("near", method="rtn", scores=[(0, 1)])  # on other samples
    log_stored(config, outcome, job())
    assert exit_codes(read(config)) == [0] and "different samples" in caplog.text


def test_a_run_is_continued_where_the_project_has_it(config, monkeypatch):
    import wandb

    from qig.tracking import tracker

    given = []

    def init(**settings):
        given.append(settings)
        raise wandb.errors.CommError("no network")

    monkeypatch.setattr(wandb, "init", init)
    with Place.of(config, "ours", job("grid")).tracker():
        pass
    with tracker({"tracking": vars(config.tracking)}, "report x", "x", "report"):
        pass
    assert [(one["id"], one["resume"]) for one in given] == [("ours", "allow"), (None, None)]
