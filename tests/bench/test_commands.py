"""``qig-bench`` end to end on very little: files, tables and what must be the same; no time is asserted."""

from __future__ import annotations

import json
import shlex

import pytest
from omegaconf import OmegaConf
from safetensors.torch import load_file

from qig.bench import scaling, startup
from qig.bench.__main__ import main
from qig.bench.cost import METHODS, PLAIN, Cost
from qig.bench.memory import Measured
from qig.bench.published import Turn, medians
from qig.bench.shapes import SHAPES
from qig.blockwise.artefact import block_folder
from qig.blockwise.run import BlockPass
from qig.planning import rehearsal

SMALL = "hidden_size: 256\nintermediate_size: 384\nnum_attention_heads: 4\nnum_key_value_heads: 2\n"
FEW = ["calibration.shots=2", "equalization.points=2"]


@pytest.fixture
def small(tmp_path, monkeypatch):
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    monkeypatch.setitem(SHAPES, "small", file)
    return "small"


def run(tmp_path, capsys, *arguments) -> dict:
    assert main([*arguments, "--to", str(tmp_path)]) == 0
    table = capsys.readouterr().out
    (file,) = tmp_path.glob("*.json")
    assert file.with_suffix(".md").read_text().strip() == table.strip() and "|" in table
    found = json.loads(file.read_text())
    assert found["cpu"]["model"] and found["packages"]["torch"]
    assert found["command"] == shlex.join(["qig-bench", *arguments, "--to", str(tmp_path)])
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_whole_heads_and_groups(shape):
    values = OmegaConf.load(SHAPES[shape])
    assert values["hidden_size"] % values["num_attention_heads"] == 0
    assert values["num_attention_heads"] % values["num_key_value_heads"] == 0
    assert values["hidden_size"] % 128 == values["intermediate_size"] % 128 == 0  # W3A16's groups


def test_calibration(tmp_path, small, capsys, monkeypatch):
    passes: list[list[int]] = []

    class Counted(BlockPass):
        def run(self):
            found = super().run()
            files = [block_folder(self.folder, index) / "weights.safetensors" for index in range(len(found))]
            passes.append([sum(name.endswith(".integers") for name in load_file(file)) for file in files])
            return found

    monkeypatch.setattr(rehearsal, "BlockPass", Counted)
    found = run(tmp_path, capsys, "calibration", "--shape", small, "--device", "cpu", "--samples", "2", *FEW)
    measured = {row["what"]: row["measured"] for row in found["rows"]}
    assert {"attribution", "search", "capture", "peak host memory"} <= set(measured)
    assert all(value >= 0 for value in measured.values())
    foreseen = {row["what"]: row["foreseen"] for row in found["rows"]}
    assert {"attribution", "search", "capture", "peak host memory"} <= set(foreseen)
    assert len(passes) > 1 and all(linears == [7, 7] for linears in passes)  # each rehearsal has all to quantize


def test_published_has_every_method_of_every_turn(tmp_path, small, capsys):
    few = ["--samples", "2", "--few", "1", "--repetitions", "2", "--methods", PLAIN, *METHODS]
    found = run(tmp_path, capsys, "published", FEW[0], "--shape", small, "--device", "cpu", *few)
    assert {row["method"] for row in found["rows"]} == {PLAIN, *METHODS} and len(found["raw"]) == 2 * 4
    nodes = {row["method"]: row["nodes"]["mlp_in"] for row in found["rows"]}
    assert nodes[PLAIN] == nodes["release"] == 32 and nodes["awq"] is None
    tokens = {row["method"]: row["tokens"] for row in found["rows"]}
    assert tokens["qig"] == tokens["awq"] > tokens[PLAIN] == tokens["release"] > 0
    assert len(list(tmp_path.glob("published_*.png"))) == 1


def test_medians_and_ratios():
    def turn(method, repetition, attribution, total, tokens=1000):
        stages = {"capture": 0.0, "attribution": attribution, "search": 1.0, "rounding": 0.0, "propagation": 0.0}
        return Turn("w3a16", method, repetition, tokens, Cost(stages, total, {}))

    turns = [turn(PLAIN, i, value, 20) for i, value in enumerate((7.0, 9.0, 100.0))]
    turns += [turn("qig", i, value, 6) for i, value in enumerate((1.0, 0.0, 3.0))]
    turns += [turn("awq", i, 0.0, 4) for i in range(3)]
    rows = {row["method"]: row for row in medians(turns)}
    assert rows["qig"]["times_faster"] == pytest.approx(10 / 2) and rows["qig"]["to_awq"] == pytest.approx(6 / 4)
    assert (rows["qig"]["least"], rows["qig"]["most"]) == (1.0, 4.0) and rows[PLAIN]["times_faster"] == 1
    fewer = [turn(PLAIN, 0, 9.0, 20, tokens=500), turn("qig", 0, 1.0, 6)]  # of half as many tokens
    assert {row["method"]: row["times_faster"] for row in medians(fewer)}["qig"] == pytest.approx(2 * 10 / 2)


def test_accuracy_of_a_rule_against_itself(tmp_path, capsys):
    few = ["--samples", "1", "--nodes", "4", "--settings", "w4a8", "--models", "tiny_qwen2_vl"]
    found = run(tmp_path, capsys, "accuracy", "--device", "cpu", *few)
    assert len(found["raw"]) == 6 * 3 * 2 and {row["rule"] for row in found["rows"]} == {"ours", "plain"}
    assert all(0.9 < row["least_correlation"] <= 1 + 1e-9 and row["equal_scales"] <= 6 for row in found["rows"])
    closed = [row for row in found["rows"] if row["site"] == "mlp_out" and row["rule"] == "ours"]
    assert closed[0]["nodes"] == "0" and closed[0]["least_correlation"] == pytest.approx(1)  # all rules but plain


def test_evaluation(tmp_path, capsys):
    few = ["--settings", "fp16", "w4a8", "--questions", "2", "--repetitions", "1"]
    found = run(tmp_path, capsys, "evaluation", "--device", "cpu", *few)
    assert [row["setting"] for row in found["rows"]] == ["fp16", "w4a8"] and found["rows"][0]["to_first"] == 1


def test_growth(tmp_path, capsys, monkeypatch):
    def measured(point, _device):
        cost = Cost({"attribution": 1.0, "search": 2.0}, 3.0 * point.samples, {})
        return Measured(point, 400 * point.samples, 2**20, cost)

    monkeypatch.setattr(scaling, "measure", measured)
    where = ["--shape", next(iter(SHAPES)), "--device", "cpu"]
    found = run(tmp_path, capsys, "scaling", *where, "--samples", "1", "2", "--plain", "1")
    assert [row["peak_mib"] for row in found["rows"]] == [1.0] * 8
    assert {(row["method"], row["activations"], row["blocks"]) for row in found["rows"]} == {
        ("qig", "device", 1), ("qig", "disk", 1), ("qig", "device", 2), ("qig", "device", 4), (PLAIN, "device", 1)
    }  # fmt: skip


def test_starts_are_those_of_the_command(tmp_path, capsys, monkeypatch):
    commands = []
    monkeypatch.setattr(startup, "_run", lambda arguments, _folder: commands.append(arguments) or (1.0, 0.5))
    found = run(tmp_path, capsys, "startup", "--repetitions", "3")
    assert len(commands) == 1 + 3 * 3 and commands[0] == commands[2] != commands[1] == ["--help"]
    assert commands[3] == [*commands[2], "device=auto"]
    assert [row["seconds"] for row in found["rows"]] == [1.0, 1.0, 1.0]


def test_one_of_shape_and_model(capsys):
    assert main(["calibration"]) == 1
    assert "expected one of --shape and --model" in capsys.readouterr().err
    assert main(["published", "--model", "tiny_qwen2_vl", "--methods", "best", "--samples", "1"]) == 1
    assert "best" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"), [(["foo=1"], "foo"), (["method=qgi"], "qgi"), (["calibration.samples=many"], "many")]
)
def test_a_wrong_override_is_one_message(words, said, capsys):
    assert main(["calibration", "--model", "tiny_internvl", *words]) == 1
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
