"""Whether there can be an accelerator is told without torch, and never wrongly denied."""

import subprocess
import sys

import pytest
import torch

from qig import accelerator
from qig.accelerator import idle_card, ruled_out
from qig.devices import device_name

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


def test_a_card_that_torch_cannot_use_is_told(monkeypatch, tmp_path, caplog):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "nvidiactl").touch()  # a driver without a card
    assert idle_card(tmp_path) is None
    (tmp_path / "nvidia0").touch()
    assert idle_card(tmp_path) == f"{tmp_path / 'nvidia0'} is there, but torch {torch.__version__} cannot use it"
    for sees_nothing in (True, False):  # a build for the processor; a driver that torch cannot use
        monkeypatch.setattr("qig.devices.ruled_out", lambda ruled=sees_nothing: ruled)
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
        monkeypatch.setattr("qig.devices.idle_card", lambda: idle_card(tmp_path))
        caplog.clear()
        assert device_name("auto") == "cpu" and "nvidia0 is there" in caplog.text
        caplog.clear()
        assert device_name("cpu") == "cpu" and not caplog.text
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # hidden on purpose
    assert device_name("auto") == "cpu" and not caplog.text


def test_it_is_told_without_torch():
    told = "import sys; from qig.accelerator import ruled_out; ruled_out(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", told]).returncode == 0
