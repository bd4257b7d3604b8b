"""The campaign with few inputs, and the smallest inputs of the defects that it has found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fuzz.campaign import fuzz
from fuzz.outcome import Defect, Hang, Outcomes
from fuzz.targets import hydra_folder, targets
from qig.__main__ import message
from qig.errors import QigError

FEW = {"overrides": 8, "experiments": 6, "calibration": 30, "checkpoints": 60, "records": 8}


@pytest.fixture(scope="module")
def all_targets(tmp_path_factory):
    return targets(tmp_path_factory.mktemp("valid"))


@pytest.mark.parametrize("name", FEW)
def test_no_input_is_a_defect(all_targets, name):
    found = fuzz(all_targets[name], FEW[name], number=1)
    assert found.inputs >= FEW[name] - 1 and not found.defects


HEAD = b"# @package _global_\n"
DEEP = b'[{"id": 1, "answers": "a", "question": "b", "picture": ' + b"[" * 900 + b"3" + b"]" * 900 + b"}]"


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("overrides", ["quant=4"]),
        ("overrides", ["sensitivity.tolerance=nan"]),
        ("overrides", ["model.outliers.sigma=inf"]),
        ("overrides", ["model.outliers.sigma=1e30"]),
        ("overrides", ["quant.linears=a{99999999999}"]),
        ("overrides", ["seed=-1"]),
        ("overrides", ["evaluation.seed=4294967296"]),
        ("experiments", HEAD + b"&a [*a]"),
        ("experiments", HEAD + b'{"seed": "\\udb57"}'),
        ("experiments", b"k\xdc\x05"),
        ("experiments", b"#\x00@pac"),
        ("experiments", b"# @p"),
        ("experiments", b"7"),
        ("calibration", ("hf", ".json", DEEP)),
        ("calibration", ("hf", ".json", b"[" * 5000)),
        ("checkpoints", ("config.json", b"[1]")),
        ("checkpoints", ("config.json", b'{"model_type": ["internvl"]}')),
        ("checkpoints", ("config.json", b'{"model_type": "internvl", "dtype": "load"}')),
        ("checkpoints", ("model.safetensors", b"\x02" + bytes(7) + b"[]")),
        ("checkpoints", ("model.safetensors", b"\x88\x13" + bytes(6) + b"[" * 5000)),
        ("records", ("store/runs/run1/record.json", b"[" * 5000)),
        ("records", ("store/runs/run1/record.json", b"null")),
        ("records", ("store/evaluation/erun1/samples.jsonl", b'{"task": "t"}\n')),
        ("records", ("store/quantized/qrun1/sensitivity.safetensors", b"")),
        ("records", ("run.json", b'{"run": [], "store": 3}')),
        ("records", ("store/runs/run1/record.json", b'{"a":' * 200 + b"3" + b"}" * 200)),
    ],
)
def test_defects_of_former_campaigns_are_refused(all_targets, name, given, tmp_path):
    with hydra_folder(), pytest.raises(Exception) as caught:
        all_targets[name].use(given, tmp_path)
    assert message(caught.value)


def test_what_is_a_defect():
    found = Outcomes()

    def raising(error):
        def action():
            raise error

        return action

    found.of("longer", raising(TypeError("a bug")))
    found.of("short", raising(TypeError("a bug")))
    found.of("x", raising(QigError(" ")))
    found.of("y", raising(QigError("what came, what was expected")))
    found.of("z", raising(Defect("accepted")))
    found.of("ok", lambda: None)
    assert (found.inputs, found.accepted, found.messages) == (6, 1, {"QigError": 1})
    assert found.defects == {
        "test_fuzz.py:action: TypeError": "'short'",
        "QigError without a message": "'x'",
        "test_fuzz.py:action: Defect": "'z'",
    }
    assert issubclass(Hang, BaseException) and not issubclass(Hang, Exception)


def test_the_committed_results_are_of_a_campaign_without_defects():
    file = Path(__file__).parents[2] / "results" / "fuzz.json"
    rows = json.loads(file.read_text())["targets"]
    assert sum(row["inputs"] for row in rows) >= 10_000 and not any(row["defects"] for row in rows)
