"""A run made again is the same bit by bit, or the first difference is told."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from qig.config.validation import resolve
from qig.models import checkpoint
from qig.report.records import load_run
from qig.runs import repro
from qig.runs.bits import _of_tensors, first_difference
from qig.stages import Stages
from qig.store import write_manifest
from qig.store.files import sha256


@pytest.fixture(scope="module")
def made(compose, tmp_path_factory):
    """A real run of a tiny model: its store and id."""
    root = tmp_path_factory.mktemp("made") / "store"
    config = compose("model=tiny_internvl", "method=mbq", "calibration.samples=4", "calibration=digitgrid",
                     "evaluation.limit=4", "tracking=none", f"store={root}", "threads=1")  # fmt: skip
    config = resolve(dataclasses.replace(config, method="mbq"))
    stages = Stages.of(config, checkpoint.content_hash(checkpoint.resolve(config.model.path)))
    return root, stages.record(config)[0]


@pytest.fixture
def other(made, tmp_path):
    """The same run in a store of its own, to be changed."""
    shutil.copytree(made[0], tmp_path / "other")
    return load_run(tmp_path / "other", made[1])


@pytest.fixture
def ask_about(made, capsys):
    from qig.runs.__main__ import main

    def command(*arguments):
        status = main(["repro", "--store", str(made[0]), made[1], *arguments])
        told = capsys.readouterr()
        return status, told.out + told.err

    return command


def test_the_record_leads_back_to_everything(made):
    record = load_run(*made).record
    assert record["checkpoint"]["files"]["model.safetensors"] and record["data"]["calibration"]
    assert set(record["data"]["evaluation"]["documents"]) == {"qig_digitgrid"}
    assert record["determinism"]["threads"] == 1 and record["determinism"]["without_deterministic_form"] == []
    assert record["determinism"]["seeds"]["lmms-eval"] == record["config"]["evaluation"]["seed"]


def test_a_run_is_reproduced_bit_by_bit(made, ask_about, tmp_path):
    status, told = ask_about("--to", str(tmp_path / "again"))
    assert status == 0 and f"run {made[1]} is reproduced bit by bit" in told and "4 samples" in told
    assert (tmp_path / "again" / "runs" / made[1]).is_dir()
    status, told = ask_about("--to", str(tmp_path / "again"))
    assert status == 1 and "is not empty" in told


def test_a_difference_ends_with_status_1(made, other, ask_about, monkeypatch):
    flip(other, 5)
    monkeypatch.setattr(repro, "_run", lambda config, original: other)
    status, told = ask_about()
    assert status == 1 and f"run {made[1]} is NOT reproduced: blocks/000/weights.safetensors, " in told


def flip(run, place):
    """One bit of one value of the first tensor of a block."""
    file = run.quantized_folder / "blocks" / "000" / "weights.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    name = sorted(tensors)[0]
    tensors[name].flatten().view(torch.uint8)[place] ^= 1
    save_file(tensors, file)
    return name


def test_a_single_bit_is_found_and_named(made, other):
    assert first_difference(load_run(*made), other) is None
    name = flip(other, 3)
    found = first_difference(load_run(*made), other)
    assert found.startswith(f"blocks/000/weights.safetensors, {name}: 1 of ")


def test_tensors_are_compared_by_their_bits_in_their_type_and_shape():
    zeros, nan = torch.zeros(4, dtype=torch.int32), torch.full((4,), torch.nan)
    assert _of_tensors(zeros, zeros.clone()) is None and _of_tensors(nan, nan.clone()) is None
    assert _of_tensors(zeros, zeros.view(torch.float32)) == "(4,) torch.int32 and (4,) torch.float32"
    assert _of_tensors(zeros, zeros.view(2, 2)) == "(4,) torch.int32 and (2, 2) torch.int32"
    assert _of_tensors(torch.tensor([1.0, 0.0]), torch.tensor([1.0, -0.0])).startswith("1 of 2 values differ, value 1 ")


def test_what_one_run_says_of_a_sample_and_the_other_does_not_is_a_difference():
    row = {"sample": "7", "nll": 1.0}
    one, more = (SimpleNamespace(quantized_folder=None, samples=[found]) for found in (row, row | {"unparsed": False}))
    assert first_difference(one, one) is None
    assert first_difference(one, more) == "sample 7, unparsed: None and False"
    assert first_difference(more, one) == "sample 7, unparsed: False and None"


def test_a_changed_likelihood_is_found_and_named(made, other):
    file = other.store / "evaluation" / other.record["stages"]["evaluation"] / "samples.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[2]["nll"] += 1e-15
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    record = other.store / "runs" / other.id / "record.json"
    changed = json.loads(record.read_text())
    changed["data"]["evaluation"]["samples.jsonl"] = sha256(file)  # not damaged: found so
    record.write_text(json.dumps(changed))
    found = first_difference(load_run(*made), load_run(other.store, other.id))
    assert found.startswith(f"sample {lines[2]['sample']}, nll: ")


def test_damaged_originals_and_other_checkpoints_are_refused(made, other, capsys):
    from qig.runs.__main__ import main

    record = other.store / "runs" / other.id / "record.json"
    changed = json.loads(record.read_text())
    changed["checkpoint"]["sha256"] = "0" * 64
    record.write_text(json.dumps(changed))
    write_manifest(record.parent)
    assert main(["repro", "--store", str(other.store), other.id]) == 1
    assert "was made from another checkpoint" in capsys.readouterr().err
    flip(other, 3)
    assert main(["repro", "--store", str(other.store), other.id]) == 1
    assert "cannot be compared with: blocks/000/weights.safetensors does not match" in capsys.readouterr().err
