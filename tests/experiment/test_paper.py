"""``qig-paper``: what it starts, in which order, several at a time, and how it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qig.experiment import paper
from qig.experiment.together import LOGS, Together

WAIT = """
import pathlib, time
pathlib.Path("{mine}").touch()
for _ in range(600):
    if pathlib.Path("{other}").exists():
        break
    time.sleep(0.05)
else:
    raise SystemExit("alone")
"""


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QIG_STORE", str(tmp_path / "store"))


@pytest.mark.parametrize("jobs", [1, 2])
def test_all_steps_run_and_what_fails_is_named(jobs, capfd):
    steps = {
        "bad": [["-c", "raise SystemExit('no luck')"], ["-c", "open('report', 'w')"]],
        "good": [["-c", "print('fine')"], ["-c", "print('well')"]],
    }
    assert Together(jobs).run(steps) == ["bad"]
    told = capfd.readouterr()
    if jobs == 1:
        assert "no luck" in told.err and told.out.index("fine") < told.out.index("well")
        assert not LOGS.exists()
    else:
        assert "no luck" in (LOGS / "bad.log").read_text() and "no luck" not in told.err
        assert (LOGS / "good.log").read_text().split() == ["fine", "well"]
    assert "bad: failed" in told.out and "2 of 2" in told.out
    assert Path("report").exists()  # the step behind the one that failed


def test_two_at_a_time_run_at_the_same_time():
    steps = {name: [["-c", WAIT.format(mine=name, other=other)]] for name, other in (("a", "b"), ("b", "a"))}
    assert Together(2).run(steps) == []


def test_a_signal_ends_what_runs_and_nothing_begins():
    code = (
        "import sys; from qig.experiment import paper; paper._announced = lambda names, overrides: list(names);"
        "paper._chosen = lambda names, _: list(names); import qig.experiment.together as t; step = t.Together._step;"
        "wait = 'import pathlib, time; pathlib.Path(%r).touch(); time.sleep(60)';"
        "t.Together._step = lambda self, name, words: step(self, name, ['-c', wait % name]);"
        "sys.exit(paper.main(['a', 'b', 'c', '--jobs', '2']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    for name in "ab":
        while not Path(name).exists():
            assert process.poll() is None
            time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=50)
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM" in told and "Traceback" not in told
    assert not Path("c").exists()


def test_sweep_then_report_of_each_the_longest_first(monkeypatch, capsys, tmp_path):
    started = []
    monkeypatch.setattr(Together, "run", lambda self, steps: started.append((self.jobs, steps)) or [])
    words = ["table4_reference_target", "samples", "model=tiny_internvl", "--jobs", "2", "--to", "there"]
    assert paper.main(words) == 0
    (jobs, steps), (_, last) = started
    assert jobs == 2 and list(steps) == ["samples", "table4_reference_target"]
    assert steps["samples"] == [["-m", "qig", "-m", "+experiment=samples", "model=tiny_internvl"],
                                ["-m", "qig.report", "samples", "model=tiny_internvl", "--to", "there"]]
    assert list(last) == ["published_consistency"] and "3 of 3 done" in capsys.readouterr().out


def test_what_is_named_needs_no_other_experiments_file(monkeypatch, capsys):
    """One that cannot be composed would stop it."""
    monkeypatch.setattr("qig.experiment.gather.tabulated", None)
    assert paper.main(["--plan", "table5_gptq", "model=tiny_internvl"]) == 0
    assert paper.main(["--plan", "first_run"]) == 1  # which has no table
    assert "first_run has no hydra.sweeper.table" in capsys.readouterr().err


def test_it_plans_without_running(monkeypatch, capsys):
    monkeypatch.setattr(Together, "run", None)
    assert paper.main(["table5_gptq", "--plan", "model=tiny_internvl"]) == 0  # options may stand between words
    assert "5 missing" in capsys.readouterr().out
    assert paper.main(["--plan", "table5"]) == 1
    assert "did you mean 'table5_gptq'" in capsys.readouterr().err
    assert paper.main(["--plan", "--jobs", "0"]) == 1
    assert "--jobs 0: expected 1 or more" in capsys.readouterr().err
