import json
import pickle
import runpy
import sys

import pytest
from omegaconf import OmegaConf

import forked
from qig.report.__main__ import main
from qig.report.closing import close
from qig.report.jobs import compared, fingerprint, read_jobs
from qig.report.sweep import ClosingTable

APP = """
import json, pathlib, sys
import hydra
from hydra.core.hydra_config import HydraConfig

@hydra.main(execution_whitelist=["qig.*", "logging.*"], config_path=".", config_name="config")
def main(config):
    if config.fail == "raise":
        raise ValueError("no such checkpoint")
    if config.fail == "exit":
        sys.exit(3)
    folder = pathlib.Path(HydraConfig.get().runtime.output_dir)
    left = {"run": config.run, "baselines": {"16 bit": "full", "rtn": None}, "store": config.store, "cached": False}
    (folder / "run.json").write_text(json.dumps(left))

main()
"""
CONFIG = """
hydra:
  callbacks:
    closing: {_target_: qig.report.sweep.ClosingTable}
  run: {dir: out}
  sweep: {dir: out}
run: a
fail: no
store: store
"""


def leave(folder, run, *, store, rtn=None, cached=False, state=None):
    folder.mkdir(parents=True, exist_ok=True)
    left = {"run": run, "baselines": {"16 bit": "full", "rtn": rtn}, "store": str(store.root), "cached": cached}
    (folder / "run.json").write_text(json.dumps(left))
    if state:
        (folder / "job.json").write_text(json.dumps(state))


@pytest.fixture
def runs(store):
    store.run("full", method="none", quantized=False, scores=[(1, 1, 1, 1)])
    store.run("r", method="rtn", scores=[(1, 0, 0, 0)])
    store.run("a")
    store.run("b", config={"seed": 1})
    return store


def shown(folder, **options):
    lines = []
    close(folder, read_jobs(folder), show=lines.append, **options)
    return "\n".join(lines)


def test_baselines_get_rows_once_and_before_their_runs(runs, tmp_path):
    leave(tmp_path / "out" / "0", "a", store=runs, rtn="r")
    leave(tmp_path / "out" / "1", "b", store=runs, rtn="r")
    rows, problems = compared(read_jobs(tmp_path / "out"))
    assert [row.run.id for row in rows] == ["full", "r", "a", "b"]
    assert rows[1].sixteen_bit.id == "full" and rows[3].rtn.id == "r"
    assert problems == []


def test_a_baseline_that_is_a_job_itself_keeps_its_place(runs, tmp_path):
    leave(tmp_path / "0", "a", store=runs, rtn="r")
    leave(tmp_path / "1", "r", store=runs)
    rows, _ = compared(read_jobs(tmp_path))
    assert [row.run.id for row in rows] == ["full", "a", "r"]


def test_jobs_come_in_numerical_order(runs, tmp_path):
    for name in ("10", "9", "x"):
        leave(tmp_path / name, "a", store=runs)
    assert [job.folder.name for job in read_jobs(tmp_path)] == ["9", "10", "x"]


def test_every_way_to_fail_is_counted_and_named(runs, tmp_path):
    leave(tmp_path / "0", "a", store=runs, cached=True)
    # what an earlier command left does not hide that this one failed
    leave(tmp_path / "1", "b", store=runs, state={"status": "failed", "overrides": ["x=1"], "error": "ValueError: no"})
    leave(tmp_path / "2", "b", store=runs, state={"status": "started", "overrides": [], "error": None})
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "job.json").write_text(json.dumps({"status": "completed", "overrides": [], "error": None}))
    (tmp_path / "4").mkdir()
    (tmp_path / "4" / "run.json").write_text("{broken")
    leave(tmp_path / "5", "missing", store=runs)
    text = shown(tmp_path, figures=0)
    assert "6 jobs: 1 done, 1 cached, 4 failed" in text
    assert "failed: 1 (x=1): ValueError: no" in text
    assert "failed: 2: ended without a word" in text
    assert "failed: 3: completed without leaving run.json" in text
    assert "failed: 4: unreadable job files" in text
    assert "note: 5: unknown run" in text
    assert "75.0 [50.0, 100.0]" in text


def test_runs_that_cannot_be_compared_are_noted_not_raised(runs, tmp_path, task_samples):
    runs.run("other", samples=task_samples("elsewhere", [1, 1]))
    leave(tmp_path / "0", "other", store=runs)
    text = shown(tmp_path, figures=0)
    assert "note: no comparison: runs other (qig) and full (none) were evaluated on different samples" in text
    assert "1 job: 1 done, 0 cached, 0 failed" in text
    assert not (tmp_path / "comparison.csv").exists()


def test_failures_are_named_even_if_the_tables_break(runs, tmp_path, monkeypatch):
    leave(tmp_path / "0", "a", store=runs)
    leave(tmp_path / "1", "a", store=runs, state={"status": "failed", "overrides": [], "error": "ValueError: no"})
    monkeypatch.setattr("qig.report.closing.comparison", lambda rows: 1 / 0)
    lines = []
    with pytest.raises(ZeroDivisionError):
        close(tmp_path, read_jobs(tmp_path), show=lines.append)
    assert "2 jobs: 1 done, 0 cached, 1 failed" in lines[0]


def test_untouched_folders_of_an_earlier_sweep_are_left_out(runs, tmp_path):
    leave(tmp_path / "0", "a", store=runs)
    leave(tmp_path / "1", "b", store=runs)
    before = fingerprint(tmp_path)
    leave(tmp_path / "1", "b", store=runs, state={"status": "completed", "overrides": [], "error": None})
    assert [job.folder.name for job in read_jobs(tmp_path, before)] == ["1"]


def test_uniform_weights_are_not_drawn(runs, tmp_path):
    runs.run("u", sites=[{"block": 0, "site": "attn_in", "estimator": "uniform"}])
    leave(tmp_path / "0", "u", store=runs)
    leave(tmp_path / "1", "a", store=runs)
    shown(tmp_path)
    assert {path.name for path in tmp_path.glob("token_*")} == {
        "token_sensitivity_qig_a.csv", "token_sensitivity_qig_a.pdf", "token_sensitivity_qig_a.png"}


def test_single_tokens_are_drawn_before_modalities(runs, tmp_path):
    runs.run("m", method="mbq", config={"sensitivity": {"kind": "modality_gradient", "granularity": "modality"}})
    leave(tmp_path / "0", "m", store=runs)
    leave(tmp_path / "1", "a", store=runs)
    shown(tmp_path)
    assert {path.name for path in tmp_path.glob("*.png")} == {"token_sensitivity_qig_a.png"}


def hydra_app(runs, tmp_path, *arguments):
    # Apart from the store: Hydra takes folders beside a configuration for groups.
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "app.py").write_text(APP)
    (tmp_path / "app" / "config.yaml").write_text(CONFIG)

    def app() -> None:
        sys.argv = ["app/app.py", f"store={runs.root}", *arguments]
        runpy.run_path("app/app.py", run_name="__main__")

    return forked.run(app, tmp_path)


def test_a_sweep_with_a_failed_job_closes_and_still_fails(runs, tmp_path):
    result = hydra_app(runs, tmp_path, "-m", "run=a,b", "fail=no,raise")
    assert result.returncode != 0
    assert "no such checkpoint" in result.stderr
    assert "4 jobs: 2 done, 0 cached, 2 failed" in result.stdout
    assert "ValueError: no such checkpoint" in result.stdout
    assert "run=b fail=raise" in result.stdout
    assert result.stdout.count("75.0 [50.0, 100.0]") == 2
    out = tmp_path / "out"
    written = {"comparison.csv", "comparison.md", "by_type.csv",
               "token_sensitivity_qig_a.png", "token_sensitivity_qig_a.pdf"}
    assert written <= {path.name for path in out.iterdir()}
    assert str(out.name) in result.stdout


def test_one_run_closes_in_its_folder(runs, tmp_path):
    result = hydra_app(runs, tmp_path, "run=b")
    assert result.returncode == 0, result.stderr
    assert "1 job: 1 done, 0 cached, 0 failed" in result.stdout
    assert (tmp_path / "out" / "comparison.csv").is_file()
    assert result.stderr == ""


def test_a_broken_report_leaves_the_exit_status_alone(runs, tmp_path):
    (runs.root / "evaluation" / "ea" / "samples.jsonl").write_text('{"task": "t"}\n')
    result = hydra_app(runs, tmp_path)
    assert result.returncode == 0
    assert "no comparison:" in result.stdout and "samples.jsonl, line 1 lacks sample, cluster, type" in result.stdout


def test_a_failed_single_run_leaves_hydras_error_and_no_table(runs, tmp_path):
    result = hydra_app(runs, tmp_path, "fail=raise")
    assert result.returncode == 1
    assert "ValueError: no such checkpoint" in result.stderr
    assert result.stdout == ""
    assert json.loads((tmp_path / "out" / "job.json").read_text())["status"] == "failed"


def test_a_job_that_exits_is_a_failure(runs, tmp_path):
    result = hydra_app(runs, tmp_path, "-m", "fail=exit")
    assert result.returncode == 3
    assert "1 job: 0 done, 0 cached, 1 failed" in result.stdout
    assert "SystemExit: 3" in result.stdout


def test_rendering_again(runs, tmp_path, capsys):
    leave(tmp_path / "out" / "0", "a", store=runs)
    assert main([str(tmp_path / "out"), "--figures", "0"]) == 0
    assert "75.0 [50.0, 100.0]" in capsys.readouterr().out
    assert (tmp_path / "out" / "comparison.md").is_file()
    assert not list((tmp_path / "out").glob("*.png"))
    leave(tmp_path / "out" / "1", "a", store=runs, state={"status": "started", "overrides": [], "error": None})
    assert main([str(tmp_path / "out"), "--figures", "0"]) == 1


def test_results_to_keep_have_the_record_of_every_run(runs, tmp_path, capsys):
    leave(tmp_path / "out" / "0", "a", store=runs, rtn="r")
    assert main([str(tmp_path / "out"), "--to", str(tmp_path / "kept"), "--figures", "0"]) == 0
    assert (tmp_path / "kept" / "comparison.csv").is_file()
    assert not (tmp_path / "out" / "comparison.csv").exists()
    records = [json.loads(path.read_text()) for path in (tmp_path / "kept" / "records").iterdir()]
    assert sorted(record["id"] for record in records) == ["a", "full", "r"]


def test_rendering_again_fails_if_a_run_is_gone(runs, tmp_path, capsys):
    leave(tmp_path / "out" / "0", "a", store=runs)
    leave(tmp_path / "out" / "1", "lost", store=runs)
    assert main([str(tmp_path / "out"), "--figures", "0"]) == 1
    said = capsys.readouterr().out
    assert "75.0 [50.0, 100.0]" in said and "note: " in said and "lost" in said


@pytest.mark.parametrize(
    ("words", "plans"),
    [(["plan=true"], True), (["++plan=True", "seed=1"], True), (["plan=true", "plan=false"], False),
     (["plan=false"], False), (["seed=1"], False)],
)
def test_a_sweep_that_only_foresees_has_nothing_to_close(tmp_path, words, plans):
    closed = []
    callback = ClosingTable()
    callback._close = closed.append
    config = {"hydra": {"overrides": {"task": words}, "sweep": {"dir": str(tmp_path)}}}
    callback.on_multirun_end(OmegaConf.create(config))
    assert closed == ([] if plans else [str(tmp_path)])


def test_results_with_a_lost_record_are_not_kept_silently(runs, tmp_path, capsys):
    leave(tmp_path / "out" / "0", "a", store=runs, rtn="lost")
    assert main([str(tmp_path / "out"), "--to", str(tmp_path / "kept"), "--figures", "0"]) == 1
    assert "lost" in capsys.readouterr().err


def test_rendering_a_folder_without_runs_says_what_was_expected(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "expected run.json" in capsys.readouterr().err


def test_the_callback_travels_to_other_processes(runs, tmp_path):
    callback = ClosingTable(figures=2)
    callback.on_run_start(OmegaConf.create({"hydra": {"run": {"dir": str(tmp_path)}}}))
    assert pickle.loads(pickle.dumps(callback)).figures == 2
