"""One GPU a job by the launchers of one machine, with as many GPUs as a test wants there to be."""

from __future__ import annotations

import os
import sys
import threading

import pytest
import torch
from filelock import FileLock
from omegaconf import OmegaConf

from qig.errors import ConfigError
from qig.experiment import launchers
from qig.experiment.launchers import gpus, joblib, submitit


@pytest.fixture(autouse=True)
def nothing_taken(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    yield
    gpus.take_gpu.cache_clear()


@pytest.fixture
def launched(monkeypatch):
    """What the plugin gets to see of a launcher."""
    seen = []
    monkeypatch.setattr(joblib.Plugin, "launch", lambda self, jobs, first: seen.append((self, jobs, first)))
    return seen


def launcher(tmp_path, n_jobs=-1, device="auto"):
    made = joblib.JoblibLauncher(n_jobs=n_jobs)
    config = OmegaConf.create({"device": device, "hydra": {"sweep": {"dir": str(tmp_path / "sweep")}}})
    made.setup(hydra_context=None, task_function=lambda config: os.environ["CUDA_VISIBLE_DEVICES"], config=config)
    return made


def has_gpus(monkeypatch, count):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_a_plain_install_has_no_plugin_and_none_is_made_known(monkeypatch):
    made_known = []
    monkeypatch.setattr("hydra.core.plugins.Plugins.register", lambda self, cls: made_known.append(cls.__name__))
    launchers.register()
    assert "JoblibLauncher" in made_known
    made_known.clear()
    for name in [name for name in sys.modules if name.startswith("hydra_plugins.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hydra_plugins", None)  # what stands for a package that is not there
    launchers.register()
    assert not made_known


@pytest.mark.parametrize(("asked", "count", "jobs"), [(-1, 4, 4), (2, 4, 2), (8, 4, 4), (-1, 0, -1), (3, 0, 3)])
def test_as_many_jobs_at_once_as_there_are_gpus(launched, monkeypatch, tmp_path, asked, count, jobs):
    has_gpus(monkeypatch, count)
    made = launcher(tmp_path, asked)
    made.launch([["a=1"]], 5)
    assert launched == [(made, [["a=1"]], 5)]
    assert made.joblib["n_jobs"] == jobs
    assert isinstance(made.task_function, joblib.OnOwnGpu) == bool(count)


def test_sweeps_on_the_processor_take_no_gpu(launched, monkeypatch, tmp_path):
    has_gpus(monkeypatch, 2)
    made = launcher(tmp_path, device="cpu")
    made.launch([["a=1"]], 0)
    assert made.joblib["n_jobs"] == -1 and not isinstance(made.task_function, joblib.OnOwnGpu)


def test_a_worker_keeps_its_gpu_and_others_get_other_ones(launched, monkeypatch, tmp_path):
    has_gpus(monkeypatch, 3)
    made = launcher(tmp_path)
    made.launch([["a=1"]], 0)
    folder = made.task_function.folder
    folder.mkdir(parents=True)
    with FileLock(folder / "0.lock"):  # another worker's
        assert made.task_function(None) == "1"
        assert made.task_function(None) == "1"
        gpus.take_gpu.cache_clear()
        assert made.task_function(None) == "1"  # that worker has ended


def test_more_workers_than_gpus_are_refused(tmp_path):
    with FileLock(tmp_path / "0.lock"), pytest.raises(ConfigError, match="all of 1 GPUs are taken"):
        gpus.take_gpu(("0",), tmp_path)


@pytest.mark.parametrize(
    ("named", "found"), [("", ("0", "1")), ("3,1", ("3", "1")), ("GPU-ab, GPU-cd", ("GPU-ab", "GPU-cd"))]
)
def test_gpus_are_those_that_the_command_may_see(monkeypatch, named, found):
    has_gpus(monkeypatch, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert gpus.visible_gpus() == found


class Process:
    """A job that is done when it is asked for the fifth time."""

    under_way = most = 0

    def __init__(self):
        self.asked = 0
        Process.under_way += 1
        Process.most = max(Process.most, Process.under_way)

    def done(self):
        self.asked += 1
        Process.under_way -= self.asked == 5
        return self.asked > 4


@pytest.mark.parametrize(("parallelism", "count", "device", "at_once"), [
    (8, 2, "auto", 2), (1, 2, "auto", 1), (3, 0, "auto", 3), (3, 2, "cpu", 3)])  # fmt: skip
def test_processes_of_submitit_take_a_gpu_each(monkeypatch, tmp_path, parallelism, count, device, at_once):
    """submitit hides them all, and there are no more at once than GPUs."""
    has_gpus(monkeypatch, count)
    monkeypatch.setattr(submitit, "POLL", 0)
    monkeypatch.setattr(Process, "most", 0)
    monkeypatch.setattr(Process, "under_way", 0)
    made = submitit.LocalLauncher(parallelism=parallelism)
    made.config = OmegaConf.create({"device": device, "hydra": {"sweep": {"dir": str(tmp_path)}}})
    executor = type("Executor", (), {"submit": lambda self, *call: Process()})()
    assert len(made._submit(executor, [()] * 6)) == 6 and Process.most == at_once
    monkeypatch.setattr(submitit.plugin.BaseSubmititLauncher, "__call__", lambda *_: os.environ["CUDA_VISIBLE_DEVICES"])
    assert made() == ("0" if made.gpus else "")


def test_a_process_waits_for_one_that_is_about_to_end(tmp_path):
    with FileLock(tmp_path / "0.lock", thread_local=False) as lock:
        threading.Timer(0.3, lock.release).start()
        assert gpus.take_gpu(("0",), tmp_path, seconds=30)[0] == "0"
