"""The report of a sweep, read back from W&B's offline folder."""

import argparse

import pandas as pd
import pytest
from PIL import Image

from offline_wandb import exit_codes, kind, logged, offline_records, table, values
from qig.errors import StoreError
from qig.experiment.gather import tracking_of
from qig.report.wandb_report import add_option, log_report
from qig.tracking import ENVIRONMENT


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for variable in ENVIRONMENT:  # set for the whole process by the first tracker
        monkeypatch.setenv(variable, ENVIRONMENT[variable])
    return {"tracking": tracking_of("bits") | {"dir": str(tmp_path / "track"), "project": "tests"}}


FRAME = pd.DataFrame({
    "model": ["a", "a"], "sensitivity.control": ["none", None], "metric": "accuracy", "value": [0.9, 0.8],
    "vs_CWE": [0.1, float("nan")], "vs_CWE_low": [0.05, float("nan")], "vs_CWE_high": [0.15, float("nan")]})


def test_a_grid_is_one_table_with_its_figures_in_one_grouped_run(config, tmp_path):
    Image.new("RGB", (4, 3)).save(tmp_path / "accuracy_bits.png")
    figures = [tmp_path / "accuracy_bits.png", tmp_path / "accuracy_bits.pdf", tmp_path / "accuracy_bits.csv"]
    log_report(FRAME, figures, "table2_main", config["tracking"], {"overrides": ["model=a"]})
    assert exit_codes(config) == [0]
    started = next(record.run for record in offline_records(config) if kind(record) == "run")
    assert started.display_name == "report table2_main"
    assert (started.run_group, started.job_type) == ("table2_main", "report")
    initial = values(started.config.update)
    assert initial["report"] == "table2_main" and initial["overrides"] == ["model=a"]
    found = logged(config)
    grid = table(config, found, "grid")
    assert grid["columns"] == ["model", "sensitivity/control", "metric", "value", "vs_CWE", "vs_CWE_low", "vs_CWE_high"]
    assert grid["data"] == [["a", "none", "accuracy", 0.9, 0.1, 0.05, 0.15], ["a", None, "accuracy", 0.8] + [None] * 3]
    assert (found["figures/accuracy_bits.width"], found["figures/accuracy_bits.height"]) == (4, 3)
    assert len({key.partition(".")[0] for key in found if key.startswith("figures/")}) == 1


def test_the_default_is_offline():
    found = tracking_of("bits")
    assert found["mode"] == "offline" and found["kind"] == "wandb"


def test_the_sweeps_own_group_wins(config):
    log_report(FRAME, [], "name", config["tracking"] | {"group": "mine"})
    started = next(record.run for record in offline_records(config) if kind(record) == "run")
    assert started.run_group == "mine"


def test_a_report_that_is_not_logged_is_an_error(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="report name is not in W&B"):
        log_report(FRAME, [], "name", config["tracking"] | {"dir": str(tmp_path / "file" / "below")})
    with pytest.raises(StoreError, match="report name is not in W&B"):
        log_report(FRAME, [tmp_path / "lost.png"], "name", config["tracking"])


def test_the_flag():
    parser = argparse.ArgumentParser()
    add_option(parser)
    assert parser.parse_args([]).wandb is False and parser.parse_args(["--wandb"]).wandb is True
