"""What a run does with what the store has of it already."""

from dataclasses import replace

import pytest
import torch

from qig.devices import check_evaluation, device_name
from qig.errors import ConfigError, QigError
from qig.evaluated import _answered
from qig.quantization.linear import FakeQuantLinear
from qig.stages import _quantize

KINDS = ("quantized", "evaluation", "runs")


@pytest.fixture
def made(stages, config):
    """A finished run's kinds to folders."""
    stages.record(config)
    assert stages.made == list(KINDS)
    stages.made.clear()
    keys = stages.keys(config)
    return {kind: stages.store.path(kind, key) for kind, key in {"runs": keys.run, **keys.stages}.items()}


def test_what_is_whole_is_not_made_again(stages, config, made):
    assert stages.has_record(stages.keys(config)) and stages.record(config)[1] and stages.made == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["flipped", "gone"])
def test_what_is_damaged_or_gone_is_made_again_with_the_record_over_it(stages, config, made, kind, way):
    file = made[kind] / "content.json"
    before = file.read_bytes()
    if way == "gone":
        for inner in made[kind].iterdir():
            inner.unlink()
        made[kind].rmdir()
    else:
        file.write_bytes(bytes([before[0] ^ 1]) + before[1:])
    # Integers may be gigabytes: whether they are damaged is looked at by the run itself.
    assert stages.has_record(stages.keys(config)) == (kind == "quantized" and way == "flipped")
    assert stages.record(config) == (stages.keys(config).run, False)
    assert stages.made == ([kind] if kind == "runs" else [kind, "runs"])
    assert file.read_bytes() == before and stages.record(config)[1]


def test_two_that_find_a_stage_gone_make_it_once(stages, config, made, monkeypatch):
    """The second one decides before the first is done, and waits for its lock."""
    for inner in made["evaluation"].iterdir():
        inner.unlink()
    made["evaluation"].rmdir()
    lacking, asked = stages._lacking, []

    def seen(keys):
        if not asked:
            asked.append(True)
            assert stages.record(config)[1] is False  # the other one, from beginning to end
            return "gone when it looked"
        return lacking(keys)

    monkeypatch.setattr(type(stages), "_lacking", lambda self, keys: seen(keys))
    assert stages.record(config)[1] is True
    assert stages.made == ["evaluation", "runs"]


def test_a_device_without_float64_is_not_taken(monkeypatch):
    """Apple's; errors, moments and integrals are added in float64."""
    empty = torch.empty

    def without_float64(*size, device=None, dtype=None):
        if device == "mps" and dtype is torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return empty(*size, dtype=dtype)

    monkeypatch.setattr(torch, "empty", without_float64)
    monkeypatch.setattr("qig.devices.ruled_out", lambda: False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))
    assert device_name("auto") == "cpu"
    with pytest.raises(ConfigError, match=r"device='mps' cannot be used .*float64"):
        device_name("mps")


def test_more_processes_than_devices_are_refused(config, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)

    def check(processes, device):
        check_evaluation(replace(config.evaluation, processes=processes), device)

    check(2, "cuda"), check(1, "cuda"), check(8, "cpu")
    with pytest.raises(ConfigError, match=r"evaluation\.processes=8: each takes a device of its own, and 2"):
        check(8, "cuda")


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_a_single_device_has_nothing_to_be_spread_over(config, device):
    config.evaluation.sharded = True
    check_evaluation(config.evaluation, "cuda")
    with pytest.raises(ConfigError, match=rf"evaluation\.sharded=true spreads a model .*; got device={device}"):
        check_evaluation(config.evaluation, device)


def test_a_sharded_model_is_spread_when_it_is_quantized_and_answers_alike(config, monkeypatch, tmp_path):
    found, folders = [], [tmp_path / name for name in ("quantized", "one", "spread")]

    def spread(loaded):
        found.extend(module for module in loaded.blocks.modules() if isinstance(module, FakeQuantLinear))

    monkeypatch.setattr("qig.evaluation.spread.spread", spread)
    monkeypatch.setattr("qig.evaluation.spread.accelerators", lambda kind: [torch.device(kind)] * 2)
    for folder in folders:
        folder.mkdir()
    quantized, *answers = folders
    _quantize(config, torch.device("cpu"), quantized, None)
    config.evaluation = replace(config.evaluation, limit=11)
    for config.evaluation.sharded, folder in zip((False, True), answers, strict=True):
        assert not found
        _answered(config, torch.device("cpu"), quantized, folder)
    one, other = ((folder / "samples.jsonl").read_bytes() for folder in answers)
    assert found and one == other


def test_several_processes_answer_as_the_quantized_model_and_not_as_the_16_bit_one(config, monkeypatch, tmp_path):
    """Each loads a model of its own, from what it is told."""
    from qig.evaluation.parallel import _work

    started, device = [], torch.device("cpu")
    monkeypatch.setattr("qig.evaluation.parallel.launch", lambda job, n: started.append((job, n)) or _work(job))
    folders = {name: tmp_path / name for name in ("quantized", "one", "several", "sixteen")}
    for folder in folders.values():
        folder.mkdir()
    _quantize(config, device, folders["quantized"], None)
    config.evaluation = replace(config.evaluation, limit=11)
    _answered(config, device, folders["quantized"], folders["one"])
    config.evaluation = replace(config.evaluation, processes=2)
    _answered(config, device, folders["quantized"], folders["several"])
    _answered(config, device, None, folders["sixteen"])
    one, several, sixteen = ((folders[name] / "samples.jsonl").read_bytes() for name in ("one", "several", "sixteen"))
    assert one == several != sixteen
    assert [(job.evaluation.processes, n) for job, n in started] == [(2, 2), (2, 2)]


def test_too_small_a_device_is_one_message_with_remedies(config, monkeypatch, tmp_path):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore of it")

    config.evaluation.batch_size, config.calibration.tokens_per_batch = 8, 512
    monkeypatch.setattr("qig.quantized.load", full)
    with pytest.raises(QigError, match=r"memory of cpu does not do: CUDA .* 2\.00 GiB\. Try evaluation\.batch_size=4 "):
        _answered(config, torch.device("cpu"), None, tmp_path)
    monkeypatch.setattr("qig.calibrate.quantize", full)
    with pytest.raises(QigError, match=r"memory\.activations=host .* calibration\.tokens_per_batch=256"):
        _quantize(config, torch.device("cpu"), tmp_path, None)
