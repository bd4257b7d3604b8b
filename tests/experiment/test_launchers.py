"""One GPU a job by joblib's launcher, with as many GPUs as a test wants there to be."""

from __future__ import annotations

import os
import sys

import pytest
import torch
from filelock import FileLock
from omegaconf import OmegaConf

from qig.errors import ConfigError
from qig.experiment import launchers
from qig.experiment.launchers import joblib


@pytest.fixture(autouse=True)
def nothing_taken(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    yield
    joblib.take_gpu.cache_clear()


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


@pytest.mark.parametrize(("asked", "gpus", "jobs"), [(-1, 4, 4), (2, 4, 2), (8, 4, 4), (-1, 0, -1), (3, 0, 3)])
def test_as_many_jobs_at_once_as_there_are_gpus(launched, monkeypatch, tmp_path, asked, gpus, jobs):
    has_gpus(monkeypatch, gpus)
    made = launcher(tmp_path, asked)
    made.launch([["a=1"]], 5)
    assert launched == [(made, [["a=1"]], 5)]
    assert made.joblib["n_jobs"] == jobs
    assert isinstance(made.task_function, joblib.OnOwnGpu) == bool(gpus)


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
        joblib.take_gpu.cache_clear()
        assert made.task_function(None) == "1"  # that worker has ended


def test_more_workers_than_gpus_are_refused(tmp_path):
    with FileLock(tmp_path / "0.lock"), pytest.raises(ConfigError, match="all of 1 GPUs are taken"):
        joblib.take_gpu(("0",), tmp_path)


@pytest.mark.parametrize(
    ("named", "found"), [("", ("0", "1")), ("3,1", ("3", "1")), ("GPU-ab, GPU-cd", ("GPU-ab", "GPU-cd"))]
)
def test_gpus_are_those_that_the_command_may_see(monkeypatch, named, found):
    has_gpus(monkeypatch, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert joblib.visible_gpus() == found
