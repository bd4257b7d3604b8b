"""Whole-model gradients on disk: resumed behind the last block, shared, repaired; always the same bits."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from qig.blockwise.activations import Activations
from qig.sensitivity import gradients as gradients_module
from qig.sensitivity import shared_gradients
from qig.sensitivity.gradients import output_gradients
from qig.sensitivity.kept_gradients import KeptGradients
from qig.sensitivity.shared_gradients import SharedGradients

CPU = torch.device("cpu")
NAMES = ("mlp.down_proj", "self_attn.o_proj")
BLOCKS = 3


@pytest.fixture(scope="module")
def case(fresh_model, digit_samples, batches_of):
    loaded = fresh_model("tiny_qwen2_vl", blocks=BLOCKS)
    batches = batches_of(loaded, digit_samples[:4])
    assert len(batches) > 1
    return loaded, batches, output_gradients(loaded, batches, NAMES, Activations(CPU))


def assert_same(one, other):
    assert len(one) == len(other) == BLOCKS
    for mine, theirs in zip(one, other, strict=True):
        assert mine.keys() == theirs.keys() == set(NAMES)
        for name in NAMES:
            assert len(mine[name]) == len(theirs[name])
            assert all(torch.equal(a, b) for a, b in zip(mine[name], theirs[name], strict=True))


class Killed(BaseException):
    pass


@pytest.fixture
def backward(monkeypatch):
    """Blocks that went backward, in order; ``backward.stop_before = index`` kills the pass there."""
    original = gradients_module._through

    class Backward(list):
        stop_before = None

        def __call__(self, streams, index, batch, *rest):
            if index == self.stop_before:
                raise Killed
            if batch == 0:
                self.append(index)
            return original(streams, index, batch, *rest)

    backward = Backward()
    monkeypatch.setattr(gradients_module, "_through", backward)
    return backward


def made(case, folder):
    loaded, batches, _ = case
    return output_gradients(loaded, batches, NAMES, Activations(CPU), KeptGradients(folder, BLOCKS))


def killed(case, folder, backward, before):
    backward.stop_before = before
    with pytest.raises(Killed):
        made(case, folder)
    backward.stop_before = None
    backward.clear()


@pytest.mark.parametrize("before", range(BLOCKS))
def test_a_killed_pass_goes_on_behind_its_last_block(case, tmp_path, backward, before):
    killed(case, tmp_path, backward, before)
    assert_same(made(case, tmp_path), case[2])
    assert backward == list(range(before, -1, -1))
    backward.clear()
    assert_same(made(case, tmp_path), case[2])
    assert backward == []


def test_only_the_blocks_that_are_needed_go_forward(case, tmp_path, backward, monkeypatch):
    killed(case, tmp_path, backward, 0)
    forward = []
    original = gradients_module.Streams.advance

    def advance(self, index, *blocks):
        forward.append(index)
        original(self, index, *blocks)

    monkeypatch.setattr(gradients_module.Streams, "advance", advance)
    made(case, tmp_path)
    assert forward == []  # what enters block 0 is there before any block


@pytest.mark.parametrize("victim", ["blocks/002/gradients.safetensors", "blocks/001/MANIFEST.json",
                                    "running/001/running.safetensors", "forward/seconds.json"])  # fmt: skip
def test_damage_is_seen_and_costs_work_not_bits(case, tmp_path, backward, victim):
    killed(case, tmp_path, backward, 0)
    content = bytearray((tmp_path / victim).read_bytes())
    content[len(content) // 2] ^= 4
    (tmp_path / victim).write_bytes(content)
    assert_same(made(case, tmp_path), case[2])


@pytest.mark.parametrize(("made_in", "elsewhere"), [(1000.0, 997.0), (2.0, 0.0)])
def test_what_others_spent_is_what_making_them_took_less_what_reading_them_took(
    case, tmp_path, monkeypatch, made_in, elsewhere
):
    loaded, batches, _ = case
    shared = SharedGradients(lambda build: tmp_path)
    made(case, tmp_path)
    KeptGradients(tmp_path, BLOCKS).close({})
    record = json.loads((tmp_path / "gradients.json").read_text())
    (tmp_path / "gradients.json").write_text(json.dumps({**record, "seconds": made_in}))
    readings = iter([10.0, 13.0])
    monkeypatch.setattr(shared_gradients, "time", SimpleNamespace(perf_counter=lambda: next(readings)))
    shared.of(loaded, batches, Activations(CPU))
    assert shared.elsewhere == elsewhere


def test_runs_share_them_and_the_record_says_what_they_cost(case, tmp_path, backward):
    loaded, batches, _ = case
    builds = []

    def place(build):
        folder = tmp_path / "gradients"
        if not folder.exists():
            folder.mkdir()
            builds.append(build(folder))
        return folder

    first, second = SharedGradients(place), SharedGradients(place)
    assert_same(first.of(loaded, batches, Activations(CPU)), case[2])
    assert backward == [2, 1, 0] and first.elsewhere == 0
    assert_same(second.of(loaded, batches, Activations(CPU)), case[2])
    assert backward == [2, 1, 0] and len(builds) == 1
    assert {path.name for path in (tmp_path / "gradients").iterdir()} == {"blocks", "forward", "gradients.json"}


def test_seconds_of_gradients_are_those_of_the_pass_forward_and_of_every_block(tmp_path):
    kept = KeptGradients(tmp_path, 2)
    kept.note_forward(100.0)
    kept.note_forward(7.0)  # of an attempt that went on
    for index, seconds in ((1, 20.0), (0, 3.0)):
        kept.add(index, {"mlp": [torch.ones(1, 2)]}, [torch.ones(1, 2, 4)], seconds)
    kept.close({"peak_host_bytes": 5})
    assert json.loads((tmp_path / "gradients.json").read_text()) == {"seconds": 123.0, "memory": {"peak_host_bytes": 5}}
    assert not (tmp_path / "running").exists()
