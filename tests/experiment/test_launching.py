"""Sweeps on every launcher: a failed or killed job stops nobody, and a second start runs only what is missing."""

from __future__ import annotations

import csv
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import forked
import qig
from qig.errors import ConfigError
from qig.experiment import launchers

APP = Path(__file__).with_name("swept_app.py")
LAUNCHERS = {
    "basic": [],
    "joblib": ["hydra.launcher.n_jobs=2"],
    "submitit_local": ["hydra.launcher.parallelism=2"],
    "ray": ["hydra.launcher.ray.init.num_cpus=2"],
}
MATRIX = ["a=range(6)", "b=0,1"]
FEW = ["a=0,1,2"]


def sweep(folder: Path, launcher: str, *words: str) -> subprocess.CompletedProcess:
    words = ["-m", *words, f"hydra/launcher={launcher}", *LAUNCHERS[launcher]]
    if launcher != "basic":  # its workers import the app from its file
        env = {**os.environ, "PYTHONPATH": str(Path(qig.__file__).parents[1]), "RAY_DEDUP_LOGS": "0"}
        command = [sys.executable, str(APP), *words]
        return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=500)

    def app() -> None:
        sys.argv = [str(APP), *words]
        runpy.run_path(str(APP), run_name="__main__")

    return forked.run(app, folder, limit=500)


def ran(folder: Path) -> list[str]:
    """The jobs that have run since this was last asked, sorted."""
    file = folder / "ran"
    found = sorted(file.read_text().split()) if file.exists() else []
    file.unlink(missing_ok=True)
    return found


def table(folder: Path) -> dict[str, tuple[str, str]]:
    with (folder / "out" / "jobs.csv").open() as stream:
        return {row["job"]: (row["outcome"], row["error"]) for row in csv.DictReader(stream)}


def wish(folder: Path, what: str, *jobs: str) -> None:
    (folder / what).mkdir(exist_ok=True)
    for job in jobs:
        (folder / what / job).touch()


def test_the_second_start_of_a_matrix_runs_only_the_two_that_failed(tmp_path):
    wish(tmp_path, "broken", "3-1", "5-0")
    first = sweep(tmp_path, "basic", *MATRIX)
    assert first.returncode == 1
    assert "12 jobs: 10 done, 0 cached, 2 failed" in first.stdout
    assert "error: 2 of 12 jobs failed; the same command runs them again" in first.stderr
    assert first.stdout.count("ValueError: no luck with 3-1") == first.stdout.count("no luck with 5-0") == 1
    assert len(ran(tmp_path)) == 12
    assert list(table(tmp_path)) == [str(number) for number in range(12)]

    shutil.rmtree(tmp_path / "broken")
    second = sweep(tmp_path, "basic", *MATRIX)
    assert second.returncode == 0, second.stderr
    assert ran(tmp_path) == ["3-1", "5-0"]
    assert "12 jobs: 2 done, 10 cached, 0 failed" in second.stdout


@pytest.mark.parametrize("launcher", list(LAUNCHERS)[1:])
def test_jobs_that_raise_or_are_killed_take_no_other_job_with_them(tmp_path, launcher):
    wish(tmp_path, "broken", "1-0")
    wish(tmp_path, "deadly", "2-0")
    first = sweep(tmp_path, launcher, "a=range(4)")
    assert first.returncode == 1
    assert "4 jobs: 2 done, 0 cached, 2 failed" in first.stdout
    outcomes = table(tmp_path)
    assert [outcomes[str(job)][0] for job in range(4)] == ["done", "failed", "failed", "done"]
    assert outcomes["1"][1] == "ValueError: no luck with 1-0"
    assert re.match("TerminatedWorkerError|UncompletedJobError|WorkerCrashedError", outcomes["2"][1])
    assert set(ran(tmp_path)) == {f"{job}-0" for job in range(4)}

    if launcher == "joblib":  # any launcher goes on where another one left off
        shutil.rmtree(tmp_path / "deadly")
        second = sweep(tmp_path, "basic", "a=range(4)")
        assert "4 jobs: 1 done, 2 cached, 1 failed" in second.stdout
        assert ran(tmp_path) == ["1-0", "2-0"]


def test_a_job_that_exits_and_a_damaged_record_in_batches(tmp_path):
    wish(tmp_path, "leaving", "0-0")
    assert sweep(tmp_path, "basic", *FEW, "hydra.sweeper.max_batch_size=2").returncode == 1
    assert table(tmp_path)["0"] == ("failed", "SystemExit: 3")
    assert ran(tmp_path) == ["0-0", "1-0", "2-0"]
    (tmp_path / "store" / "runs" / "run-2-0" / "record.json").write_text("{}")
    shutil.rmtree(tmp_path / "leaving")
    assert sweep(tmp_path, "basic", *FEW, "hydra.sweeper.max_batch_size=2").returncode == 0
    assert ran(tmp_path) == ["0-0", "2-0"]


def test_what_cannot_be_composed_stops_everything_before_anything_runs(tmp_path):
    found = sweep(tmp_path, "basic", "a=0,1", "c=3")
    assert found.returncode != 0 and "c" in found.stderr
    assert ran(tmp_path) == []


def test_a_launcher_whose_plugin_is_not_installed_is_refused():
    said = r"needs hydra_plugins\.\w+, which is not installed: pip install --editable '\.\[cluster\]'"
    with pytest.raises(ConfigError, match=said):
        launchers.check_installed("hydra_plugins.hydra_none_launcher.Launcher")
