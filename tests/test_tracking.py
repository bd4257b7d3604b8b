import json
import logging
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest

import qig
from offline_wandb import exit_codes, kind, logged, offline_records, table, values
from qig.errors import ConfigError
from qig.report.comparison import Compared, comparison
from qig.report.records import load_run
from qig.report.summaries import per_sample, search_curves, sensitivity_shares, standing, summary
from qig.secrets import HIDDEN, without_secrets
from qig.tracking import ENVIRONMENT, SETTINGS, NoTracking, WandbTracking, tracker

Store = runpy.run_path(str(Path(__file__).parent / "report" / "fabricated.py"))["Store"]


@pytest.fixture
def run(tmp_path):
    store = Store(tmp_path / "store")
    store.run("a", scores=[(1, 1, 0, 1)], types=["count", "count", "exists", "exists"], tokens=(2, 1, 3, 4))
    return load_run(store.root, "a")


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for variable in ENVIRONMENT:  # set for the whole process by the first tracker
        monkeypatch.setenv(variable, ENVIRONMENT[variable])
    tracking = {"kind": "wandb", "mode": "offline", "project": "tests", "entity": None, "dir": str(tmp_path / "track"),
                "group": None, "tags": ["one"], "artifacts": False}
    return {"seed": 3, "hf_token": "hunter2", "tracking": tracking}


def test_a_finished_job_is_on_disk_without_secrets(config, run, tmp_path):
    with tracker(config, "name", "sweep", "quantize") as active:
        active.log_run(run)
        active.log_comparison(pd.DataFrame({"method": ["qig"], "accuracy": [0.75], "vs_rtn": [float("nan")]}))
    assert exit_codes(config) == [0]
    started = next(record.run for record in offline_records(config) if kind(record) == "run")
    assert (started.project, started.run_group, started.job_type) == ("tests", "sweep", "quantize")
    assert list(started.tags) == ["one"] and started.display_name == "name"
    initial = values(started.config.update)
    assert initial["seed"] == 3 and initial["hf_token"] == HIDDEN
    found = logged(config)
    assert table(config, found, "search_curves")["data"][0] == [0, "attn_in", 0.0, 2.0, False]
    assert [row[6] for row in table(config, found, "samples")["data"]] == [1, 1, 0, 1]
    sites = table(config, found, "sites")
    assert sites["data"][0][sites["columns"].index("completeness")] == 0.001
    assert table(config, found, "sensitivity_shares")["data"][0][:3] == [0, "attn_in", "prompt"]
    comparison = table(config, found, "comparison")
    assert comparison["columns"] == ["method", "accuracy", "vs_rtn"]
    assert comparison["data"] == [["qig", 0.75, None]]
    summaries = {}
    for record in offline_records(config):
        if kind(record) == "summary":
            summaries |= values(record.summary.update)
    assert summaries["task0/accuracy"] == 0.75 and summaries["task0/type/exists"] == 0.5
    assert not any(kind(record) == "artifact" and record.artifact.type == "quantized"
                   for record in offline_records(config))
    assert not holds(tmp_path / "track", "hunter2")


def holds(folder, text):
    return any(text.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_run_that_weighs_no_tokens_is_logged_whole(config, tmp_path, caplog):
    store = Store(tmp_path / "other")
    store.run("full", method="none", quantized=False)
    with caplog.at_level(logging.WARNING), tracker(config, "name", None, "none") as active:
        active.log_run(load_run(store.root, "full"))
    found = logged(config)
    assert table(config, found, "sites")["data"] == [] and len(table(config, found, "samples")["data"]) == 4
    assert "sensitivity_shares.path" not in found
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_command_line_is_not_recorded(config, tmp_path):
    code = ("import json, sys\nfrom qig.tracking import tracker\n"
            "with tracker(json.loads(sys.argv[1]), 'n', None, 'j'): pass")
    environment = os.environ | {"PYTHONPATH": str(Path(qig.__file__).parents[1])}
    result = subprocess.run([sys.executable, "-c", code, json.dumps(config), "+api_key=hunter2"], env=environment,
                            cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert exit_codes(config) == [0]
    assert not holds(tmp_path / "track", "hunter2")


def test_a_failed_job_is_marked_and_its_exception_goes_on(config):
    error = RuntimeError("out of memory")
    with pytest.raises(RuntimeError) as caught, tracker(config, "name", None, "quantize"):
        raise error
    assert caught.value is error
    assert exit_codes(config) == [1]


def test_an_interrupted_job_is_marked_too(config):
    with pytest.raises(KeyboardInterrupt), tracker(config, "name", None, "quantize"):
        raise KeyboardInterrupt
    assert exit_codes(config) == [1]


def test_artifacts_and_figures_when_asked_for(config, run, tmp_path):
    from PIL import Image

    Image.new("RGB", (4, 4)).save(tmp_path / "figure.png")
    config["tracking"]["artifacts"] = True
    with tracker(config, "name", "given", "quantize") as active:
        active.log_run(run)
        active.log_figure("tokens", tmp_path / "figure.png")
    (artifact,) = [record.request.log_artifact.artifact if kind(record) == "request"
                   else record.artifact for record in offline_records(config)
                   if record.artifact.type == "quantized" or record.request.log_artifact.artifact.type == "quantized"]
    assert [entry.path for entry in artifact.manifest.contents] == ["sensitivity.safetensors"]
    assert logged(config)["figures/tokens.width"] == 4


def test_the_configured_group_wins_and_the_environment_can_switch_off(config, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with tracker(config, "name", None, "quantize") as active:
        active.log_comparison(pd.DataFrame({"method": ["qig"]}))
    assert not list((tmp_path / "track").rglob("offline-run-*"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    config["tracking"]["group"] = "mine"
    with tracker(config, "name", "sweep", "quantize"):
        pass
    started = next(record.run for record in offline_records(config) if kind(record) == "run")
    assert started.run_group == "mine"


def test_a_tracker_that_cannot_start_is_one_warning(config, run, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    config["tracking"]["dir"] = str(tmp_path / "file" / "below")
    with caplog.at_level(logging.WARNING), tracker(config, "name", None, "quantize") as active:
        active.log_run(run)
    assert isinstance(active, NoTracking)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "NotADirectoryError" in caplog.text


def test_a_service_that_dies_is_one_warning_and_no_traceback_at_the_end(config, tmp_path):
    code = """if True:
        import json, logging, sys, time
        import pandas, psutil
        from qig.tracking import tracker
        logging.basicConfig(format="%(levelname)s", stream=sys.stdout)
        with tracker(json.loads(sys.argv[1]), "n", None, "j") as active:
            service = [p for p in psutil.Process().children(recursive=True) if "wandb" in p.name()]
            for process in service:
                process.kill()
            psutil.wait_procs(service)
            for _ in range(50):  # what is sent first may still be taken
                active.log_comparison(pandas.DataFrame({"method": ["qig"]}))
                time.sleep(0.02)
        print("went on" if service else "never ran")
    """
    environment = os.environ | {"PYTHONPATH": str(Path(qig.__file__).parents[1])}
    environment.pop("WANDB_SERVICE", None)  # that of this process, if another test has started one
    result = subprocess.run([sys.executable, "-c", code, json.dumps(config)], env=environment, cwd=tmp_path,
                            capture_output=True, text=True, timeout=300)
    assert (result.returncode, result.stdout, result.stderr) == (0, "WARNING\nwent on\n", "")


def test_the_settings_are_known_to_the_installed_wandb():
    # An unknown one is dropped silently, and would take its protection with it.
    import wandb

    assert set(SETTINGS) <= set(wandb.Settings.model_fields)


def test_init_errors_are_one_warning(config, monkeypatch, caplog):
    import wandb

    def refuse(**settings):
        raise wandb.errors.CommError("no network\nsecond line")

    monkeypatch.setattr(wandb, "init", refuse)
    with caplog.at_level(logging.WARNING), tracker(config, "name", None, "quantize") as active:
        pass
    assert isinstance(active, NoTracking)
    assert len(caplog.records) == 1 and "CommError: no network)" in caplog.text


class FullDisk:
    """A session that fails from the first write on."""

    config: ClassVar[dict] = {}

    def __init__(self):
        self.calls = []

    def log(self, values):
        self.calls.append("log")
        raise OSError(28, "No space left on device")

    def finish(self, exit_code):
        self.calls.append(("finish", exit_code))
        raise OSError(28, "No space left on device")


def test_a_tracker_that_breaks_midway_warns_once_and_is_still_closed(run, caplog):
    session = FullDisk()
    active = WandbTracking(session, artifacts=False)
    with caplog.at_level(logging.WARNING):
        active.log_run(run)
        active.log_comparison(pd.DataFrame({"method": ["qig"]}))
        active.log_figure("x", Path("absent.png"))
        active.finish(0)
    assert session.calls == ["log", ("finish", 0)]
    assert len(caplog.records) == 1 and "No space left on device" in caplog.text


def test_without_tracking_wandb_is_never_imported():
    code = ("import sys\nfrom qig.tracking import tracker\n"
            "with tracker({'tracking': {'kind': 'none'}}, 'n', None, 'j') as t: t.log_run(None)\n"
            "print([m for m in ('wandb', 'torch', 'pandas') if m in sys.modules])")
    environment = os.environ | {"PYTHONPATH": str(Path(qig.__file__).parents[1])}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_an_unknown_kind_lists_the_choices():
    match = "unknown tracking kind 'wand'.*choose from: none, wandb"
    with pytest.raises(ConfigError, match=match), tracker({"tracking": {"kind": "wand"}}, "n", None, "j"):
        pass


def test_secrets_are_hidden_by_key_and_only_they():
    config = {"hf_token": "a", "nested": [{"WANDB_API_KEY": "b"}], "hub": {"access-key": "c", "password": "d"},
              "max_tokens": 5, "token_budget": 6, "pad_token_id": 7, "token": None, "key": "k", "tuple": (1, 2)}
    assert without_secrets(config) == {
        "hf_token": HIDDEN, "nested": [{"WANDB_API_KEY": HIDDEN}], "hub": {"access-key": HIDDEN, "password": HIDDEN},
        "max_tokens": 5, "token_budget": 6, "pad_token_id": 7, "token": None, "key": "k", "tuple": [1, 2]}


def test_summaries_by_hand(run):
    columns, rows = sensitivity_shares(run)
    assert columns == ("block", "site", "kind", "share")
    # weights 1 to 4 over vision, prompt, answer, special, in both samples
    assert {row[2]: pytest.approx(row[3]) for row in rows[:4]} == {
        "prompt": 0.2, "vision": 0.1, "answer": 0.3, "special": 0.4}
    assert len(rows) == 2 * 2 * 4
    assert search_curves(run)[1][:2] == [[0, "attn_in", 0.0, 2.0, False], [0, "attn_in", 0.5, 1.0, True]]
    flat = summary(run)
    assert flat["task0/type/count"] == 1.0 and flat["seconds/search"] == 3.0
    assert flat["bytes/quantized"] == 2**20 and flat["bytes/peak_device_bytes"] is None
    assert "task0/by_type" not in flat
    assert (flat["quadrature/most_nodes"], flat["quadrature/worst_residual"]) == (4, 0.001)


def test_the_worst_site_is_summed_up_and_only_of_a_run_with_quadratures(tmp_path):
    store = Store(tmp_path / "store")
    site = {"block": 0, "site": "attn_in", "estimator": "qig", "fallback": None, "exponents": [], "losses": [],
            "exponent": None}
    store.run("a", sites=[site | {"nodes": 4, "completeness": 0.01}, site | {"nodes": 16, "completeness": -0.2},
                          site | {"nodes": 0, "completeness": 0.5}])
    flat = summary(load_run(store.root, "a"))
    assert (flat["quadrature/most_nodes"], flat["quadrature/worst_residual"]) == (16, 0.2)
    store.run("b", sites=[site | {"nodes": None, "completeness": None}])
    assert not [key for key in summary(load_run(store.root, "b")) if key.startswith("quadrature")]


def test_what_a_grid_is_sorted_by_by_hand(tmp_path):
    """Two tasks of different size count the same; a run without a baseline has no difference to it."""
    store = Store(tmp_path / "store")
    store.run("rtn", method="rtn", scores=[(0, 0, 0, 0), (1, 0)], nll=0.75)
    store.run("a", scores=[(1, 1, 0, 1), (1, 0)], nll=0.5)
    ours, rtn = (load_run(store.root, name) for name in ("a", "rtn"))
    found = standing(comparison([Compared(ours, None, rtn)]))
    assert found == {"accuracy": 0.625, "accuracy_vs_rtn": 0.375, "nll": 0.5, "nll_vs_rtn": -0.25}


def test_sample_names_are_text_whatever_the_benchmark_uses(run):
    run.samples[0]["sample"], run.samples[0]["target"] = 17, ["a", "b"]
    columns, rows = per_sample(run)
    assert rows[0][columns.index("sample")] == "17" and rows[0][columns.index("target")] == "['a', 'b']"
    assert rows[0][columns.index("score")] == 1.0
