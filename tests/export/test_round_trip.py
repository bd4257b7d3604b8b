"""An exported checkpoint scores what its run scored: evaluated by us, and by lmms-eval's own command line."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

import forked
import qig
from qig.__main__ import meant_by


def samples_of(run: Path) -> list[dict]:
    record = json.loads((run / "record.json").read_text())
    file = run.parents[1] / "evaluation" / record["stages"]["evaluation"] / "samples.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("model", ["tiny_qwen2_vl", "tiny_llava_onevision", "tiny_internvl"])
def test_the_framework_evaluates_it_like_its_run(model, exported, make_run):
    export = exported(model, "w3a16")
    run = make_run(*meant_by([f"model.path={export.folder}", "method=none"]))
    assert samples_of(run) == samples_of(export.run)
    record = json.loads((run / "record.json").read_text())
    assert record["method"] == record["config"]["quant"]["name"] == "stored"
    assert record["config"]["model"]["dtype"] == "float32"  # as the checkpoint says


def test_lmms_eval_scores_the_same_answers(exported, tmp_path):
    export = exported("tiny_llava_onevision", "w3a16")
    tasks = Path(qig.__file__).parent / "evaluation" / "tasks"
    words = ["--model", "qig", "--model_args", f"checkpoint={export.folder}", "--include_path", str(tasks)]
    words += ["--tasks", "qig_digitgrid", "--limit", "6", "--batch_size", "6", "--log_samples"]

    def lmms_eval() -> None:
        sys.argv = ["lmms_eval", *words, "--output_path", str(tmp_path)]
        runpy.run_module("lmms_eval", run_name="__main__")

    done = forked.run(lmms_eval, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = tmp_path.rglob("*samples*.jsonl")
    rows = sorted((json.loads(line) for line in file.read_text().splitlines()), key=lambda row: row["doc_id"])
    theirs = [row["filtered_resps"] for row in rows]
    assert theirs == [sample["answer"] for sample in samples_of(export.run)]
