"""Files of runs that are of another kind than what reads them expects: one message that says where."""

from __future__ import annotations

import json

import pytest

from qig.errors import StoreError
from qig.report.jobs import read_job
from qig.report.records import load_run
from qig.report.schema import RECORD, SAMPLE, parsed


@pytest.fixture
def record(store):
    store.run("ab12")
    return json.loads((store.root / "runs" / "ab12" / "record.json").read_text())


def test_a_valid_record_comes_back_as_it_is(record):
    assert parsed(json.dumps(record), "x", RECORD) == record


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (["id"], "../../etc", "holds '../../etc' as id"),
        (["method"], "../x", "holds '../x' as method"),
        (["method"], "a/b", "holds 'a/b' as method"),
        (["stages", "quantized"], "../q", "as stages.quantized"),
        (["stages", "evaluation"], "", "as stages.evaluation"),
        (["stages", "evaluation"], None, "as stages.evaluation"),
        (["timings", "search"], float("nan"), "as timings.search"),
        (["timings", "search"], "3", "holds '3' as timings.search"),
        (["model_bytes", "quantized"], 10**400, "as model_bytes.quantized"),
        (["sites", 0, "nodes"], -1, "holds -1 as sites.0.nodes"),
        (["sites", 0, "block"], True, "holds True as sites.0.block"),
        (["config", "model", "name"], None, "as config.model.name"),
        (["metrics"], [], "as metrics"),
        (["config", "seed"], "\ud800", "is not JSON: UnicodeEncodeError"),
    ],
)
def test_what_is_of_another_kind_is_named(record, place, value, said):
    *outer, last = place
    part = record
    for key in outer:
        part = part[key]
    part[last] = value
    with pytest.raises(StoreError) as caught:
        parsed(json.dumps(record), "the record", RECORD)
    assert str(caught.value).startswith("the record") and said in str(caught.value)


@pytest.mark.parametrize("text", ["", "[" * 100_000, "{", "[]", "3", "null"])
def test_what_is_no_record_at_all(store, text, tmp_path):
    store.run("ab12")
    (store.root / "runs" / "ab12" / "record.json").write_text(text)
    with pytest.raises(StoreError, match=r"the run record .*record\.json"):
        load_run(store.root, "ab12")
    (tmp_path / "job.json").write_text(text)
    assert "unreadable job files" in read_job(tmp_path).error


def test_bytes_that_are_no_text(store):
    run = load_run(store.root, store.run("ab12"))
    (store.root / "evaluation" / "eab12" / "samples.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(StoreError, match=r"samples\.jsonl cannot be read: UnicodeDecodeError"):
        _ = run.samples


@pytest.mark.parametrize("score", [float("nan"), float("inf"), None, "1", True])
def test_scores_are_finite_numbers(score):
    line = {"task": "t", "sample": "s", "cluster": "c", "type": "", "score": score, "nll": None}
    with pytest.raises(StoreError, match=r"line 3 holds .* as score"):
        parsed(json.dumps(line), "line 3", SAMPLE)


@pytest.mark.parametrize("left", [{"run": "../../x"}, {"store": 3}, {"cached": "no"}, {"baselines": {"rtn": "a/b"}}])
def test_a_job_that_names_another_place(tmp_path, left):
    valid = {"run": "ab12", "store": "store", "cached": False, "baselines": {}}
    (tmp_path / "run.json").write_text(json.dumps(valid))
    assert read_job(tmp_path).error is None
    (tmp_path / "run.json").write_text(json.dumps(valid | left))
    assert f"as {next(iter(left))}" in read_job(tmp_path).error


@pytest.mark.parametrize("tensors", [["kinds"], ["sample", "block.0.mlp_in"], ["kinds", "sample", "short"]])
def test_token_weights_that_do_not_belong_together(store, tensors):
    import numpy as np
    from safetensors.numpy import save_file

    run = load_run(store.root, store.run("ab12"))
    found = {name: np.zeros(2 if name == "short" else 3, dtype=np.float32) for name in tensors}
    save_file(found, store.root / "quantized" / "qab12" / "sensitivity.safetensors")
    with pytest.raises(StoreError, match="does not hold kinds, samples and weights of the same tokens"):
        _ = run.sensitivities
