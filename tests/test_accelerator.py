"""Whether there can be an accelerator is told without torch, and never wrongly denied."""

import subprocess
import sys

import pytest
import torch

from qig import accelerator
from qig.accelerator import ruled_out

CUDA = {"cuda": "13.2", "hip": None, "rocm": None, "xpu": None}


@pytest.fixture
def build(monkeypatch):
    """``build(values)``: what torch's version.py says; Linux, and no backend from elsewhere."""
    monkeypatch.setattr(accelerator.sys, "platform", "linux")
    monkeypatch.setattr(accelerator, "entry_points", lambda group: ())
    return lambda values: monkeypatch.setattr(accelerator, "_version", lambda: values)


def test_torch_agrees_on_this_machine():
    assert not (ruled_out() and torch.accelerator.is_available())
    assert accelerator._version()["__version__"] == torch.__version__
    assert set(CUDA) <= set(accelerator._version())


@pytest.mark.parametrize("node", ["nvidiactl", "nvidia0", "nvhost-gpu", "nvmap", "dxg"])
def test_a_device_that_cuda_could_use_is_left_to_torch(build, tmp_path, node):
    build(CUDA)
    assert ruled_out(tmp_path)
    (tmp_path / "nvme0").touch()  # a disk
    assert ruled_out(tmp_path)
    (tmp_path / node).touch()
    assert not ruled_out(tmp_path)


def test_builds_for_other_accelerators_are_left_to_torch(build, tmp_path):
    build({**CUDA, "cuda": None})
    (tmp_path / "nvidia0").touch()
    assert ruled_out(tmp_path)  # a build for the processor sees no card
    for other in ("hip", "rocm", "xpu"):
        build({**CUDA, "cuda": None, other: "1.0"})
        assert not ruled_out(tmp_path)


def test_other_systems_and_backends_from_elsewhere_are_left_to_torch(build, monkeypatch, tmp_path):
    build(CUDA)
    monkeypatch.setattr(accelerator, "entry_points", lambda group: ("a backend",))
    assert not ruled_out(tmp_path)
    monkeypatch.setattr(accelerator, "entry_points", lambda group: ())
    monkeypatch.setattr(accelerator.sys, "platform", "darwin")
    assert not ruled_out(tmp_path)


def test_it_is_told_without_torch():
    told = "import sys; from qig.accelerator import ruled_out; ruled_out(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", told]).returncode == 0
