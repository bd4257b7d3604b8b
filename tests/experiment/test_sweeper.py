"""The sweeper as Hydra makes it, and qig-paper's own words."""

import subprocess

import pytest
from omegaconf import OmegaConf

from qig.errors import ConfigError
from qig.experiment import paper
from qig.experiment.sweeper import ArmSweeper

TABLE = {"title": "T", "caption": "C.", "rows": ["arm"], "metrics": ["nll"], "controls": ["CWE"]}


def sweeper(**parts):
    given = {"max_batch_size": None, "params": {"seed": "0,1"}, "arms": {"CWE": "method=awq", "QIG": "method=qig"},
             "table": None, "figures": None}
    return ArmSweeper(**{key: OmegaConf.create(value) if isinstance(value, dict) else value
                         for key, value in (given | parts).items()})


def test_batches_are_the_jobs_of_all_arms():
    made = sweeper(max_batch_size=3)
    made._arguments = ["+experiment=x"]
    batches = made.split_arguments([], 3)
    assert [len(batch) for batch in batches] == [3, 1]
    assert batches[0][0] == ["seed=0", "+experiment=x", "method=awq"]


def test_a_table_that_cannot_be_made_is_refused_before_anything_runs():
    sweeper(table=TABLE)
    with pytest.raises(ConfigError, match="CWX"):
        sweeper(table=TABLE | {"controls": ["CWX"]})


def test_a_figure_that_does_not_exist_is_refused_before_anything_runs():
    sweeper(figures=["accuracy_bits"])
    with pytest.raises(ConfigError, match=r"unknown figure 'accuracy_bit'.*did you mean 'accuracy_bits'"):
        sweeper(figures=["accuracy_bit"])


def test_paper_runs_sweep_and_report_of_each_and_goes_on_after_a_failure(monkeypatch, capsys, tmp_path):
    called = []

    def run(command):
        called.append(command[1:])
        return subprocess.CompletedProcess(command, int("+experiment=a" in command))

    monkeypatch.setattr(paper.subprocess, "run", run)
    assert paper._run(["a", "b"], ["seed=1"], tmp_path) == 1
    assert called[:3] == [["-m", "qig", "-m", "+experiment=a", "seed=1"],
                          ["-m", "qig.report", "a", "seed=1", "--to", str(tmp_path)],
                          ["-m", "qig", "-m", "+experiment=b", "seed=1"]]
    assert "2 of 3 done; failed: a" in capsys.readouterr().out


def test_paper_plans_without_running(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("QIG_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(paper.subprocess, "run", None)
    assert paper.main(["--plan", "table5_gptq", "model=tiny_internvl"]) == 0
    assert "5 missing" in capsys.readouterr().out
    assert paper.main(["--plan", "table5"]) == 1
    assert "did you mean 'table5_gptq'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("threads", "words", "found"),
    [
        (None, ["a=1"], ["a=1", "threads=3"]),
        (None, ["a=1", "threads=2"], ["a=1", "threads=2"]),
        (4, ["a=1"], ["a=1"]),
    ],
)
def test_jobs_compute_with_the_threads_of_the_machine_that_starts_them(monkeypatch, threads, words, found):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    made = sweeper()
    made.config = OmegaConf.create({"threads": threads})
    assert made._with_threads(words) == found
