"""What happens when a launcher breaks off, with launchers that do so on demand."""

from __future__ import annotations

import json

import pytest
from hydra.core.utils import JobReturn, JobStatus

from qig.errors import JobsFailed
from qig.experiment.launching import SweepJob, check_ended, launch_all
from qig.report.jobs import COMPLETED, STARTED, leave_run, leave_state, read_job
from qig.store import Store, write_json


class Launcher:
    """Runs jobs in order; ``deaths``: how often a job dies half-way, and takes the launcher with it."""

    def __init__(self, jobs, store, deaths=None):
        self.jobs, self.store, self.deaths, self.calls = {job.name: job for job in jobs}, store, deaths or {}, []

    def launch(self, job_overrides, initial_job_idx):
        names = [json.loads(words[-1].partition("=")[2]) for words in job_overrides]
        self.calls.append(names)
        for name in names:
            job = self.jobs[name]
            job.folder.mkdir(parents=True, exist_ok=True)
            leave_state(job.folder, STARTED, [])
            if self.deaths.get(name):
                self.deaths[name] -= 1
                raise OSError("a worker was killed\nby nobody knows whom")
            self.store.make("runs", name, lambda folder: write_json(folder / "record.json", {}))
            leave_run(job.folder, {"run": name, "store": str(self.store.root), "baselines": {}, "cached": False})
            leave_state(job.folder, COMPLETED, [])
        return [JobReturn(status=JobStatus.COMPLETED, _return_value=None) for _ in names]


@pytest.fixture
def jobs(tmp_path):
    return [SweepJob((f"a={number}",), tmp_path / "out", str(number)) for number in range(4)]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def errors(jobs):
    return [read_job(job.folder).error for job in jobs]


def test_nothing_breaks(jobs, store):
    launcher = Launcher(jobs, store)
    launch_all(launcher, jobs)
    check_ended(jobs)
    assert launcher.calls == [["0", "1", "2", "3"]]


def test_a_job_that_died_is_started_once_more_alone_and_the_others_together(jobs, store):
    launcher = Launcher(jobs, store, {"1": 1})
    launch_all(launcher, jobs)
    check_ended(jobs)
    assert launcher.calls == [["0", "1", "2", "3"], ["1"], ["2", "3"]]


def test_a_job_that_dies_again_has_failed(jobs, store):
    launcher = Launcher(jobs, store, {"1": 2, "3": 1})
    launch_all(launcher, jobs)
    assert errors(jobs) == [None, "OSError: a worker was killed", None, None]
    assert launcher.calls == [["0", "1", "2", "3"], ["1"], ["2", "3"], ["3"]]
    with pytest.raises(JobsFailed, match="1 of 4 jobs failed"):
        check_ended(jobs)


def test_what_an_earlier_start_left_is_not_taken_for_this_ones(jobs, store):
    launch_all(Launcher(jobs, store), jobs)

    class Broken:
        calls = 0

        def launch(self, job_overrides, initial_job_idx):
            self.calls += 1
            raise RuntimeError("no queue")

    launcher = Broken()
    launch_all(launcher, jobs)
    assert errors(jobs) == ["RuntimeError: no queue"] * 4 and launcher.calls == 1


def test_workers_whose_files_do_not_arrive_are_told_apart(jobs):
    class Elsewhere:
        def launch(self, job_overrides, initial_job_idx):
            return [JobReturn(status=JobStatus.COMPLETED, _return_value=None) for _ in job_overrides]

    launch_all(Elsewhere(), jobs)
    assert all("must be on a file system that the workers share" in error for error in errors(jobs))


def test_a_run_whose_record_is_damaged_has_failed(jobs, store):
    launch_all(Launcher(jobs, store), jobs)
    (store.path("runs", "2") / "record.json").write_text("{ }")
    with pytest.raises(JobsFailed, match="1 of 4"):
        check_ended(jobs)
    assert errors(jobs)[2] == "run 2 is damaged: record.json does not match its checksum"


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(15)])
def test_a_signal_stops_the_sweep(jobs, stop):
    class Interrupted:
        def launch(self, job_overrides, initial_job_idx):
            raise stop

    with pytest.raises(type(stop)):
        launch_all(Interrupted(), jobs)
