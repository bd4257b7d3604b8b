"""The evaluation's stage: what is finished stays finished, whenever the process dies."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial

import pytest

from qig import evaluated
from qig.errors import EvaluationError
from qig.evaluation.journal import FOLDER
from qig.evaluation.parallel import read_samples
from qig.stages import Stages
from qig.store import MANIFEST, Store


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


def die(*_arguments, **_options):
    raise Killed


@pytest.mark.parametrize("moment", ["qig.evaluation.journal.discard", "qig.store.artefacts.publish"])
def test_killed_before_it_is_published_it_is_not_done_again(tmp_path, monkeypatch, moment):
    done = []

    def answered(_config, _device, _quantized, folder):
        done.append(folder)
        (folder / FOLDER).mkdir()
        for name in ("samples.jsonl", "evaluation.json", f"{FOLDER}/0.jsonl"):
            (folder / name).write_text("{}")

    monkeypatch.setattr(evaluated, "_answered", answered)
    store = Store(tmp_path)

    def make():
        return store.make("evaluation", "k", partial(evaluated.evaluate, None, None, None), resumable=True)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(moment, die)
        make()
    folder, _ = make()
    assert len(done) == 1
    assert {file.name for file in folder.iterdir()} == {"samples.jsonl", "evaluation.json", MANIFEST}
    assert store.find("evaluation", "k") == folder


def test_refused_answers_are_kept_and_not_asked_for_again(config, tmp_path, monkeypatch):
    asked, written = [], []

    def answered(_config, _device, _quantized, folder):
        asked.append(folder)
        row = {"task": "a", "sample": "1", "unparsed": None}
        (folder / "samples.jsonl").write_text("".join(json.dumps({**row, "empty": empty}) + "\n" for empty in (0, 1)))

    monkeypatch.setattr(evaluated, "_answered", answered)
    monkeypatch.setattr("qig.record.write_record", lambda folder, *_: written.append((folder / "r").write_text("")))
    config.quant.weights, config.method = None, "none"
    one = Stages(Store(tmp_path), "checkpoint", None, "cpu")
    strict = replace(config, evaluation=replace(config.evaluation, max_empty_share=0.4))
    for _ in range(2):
        with pytest.raises(EvaluationError, match=r"1 of 2 answers to a are empty.*max_empty_share"):
            one.record(strict)
    assert not written and not one.has_record(one.keys(strict))
    lenient = replace(config, evaluation=replace(config.evaluation, max_empty_share=0.5))
    assert [one.record(lenient)[1] for _ in range(2)] == [False, True]
    with pytest.raises(EvaluationError, match=r"1 of 2 answers to a are empty.*max_empty_share"):
        one.record(strict)
    assert len(asked) == len(written) == 1


def test_a_task_more_asks_only_that_task(config, tmp_path, monkeypatch):
    asked = []

    def answered(config, _device, _quantized, folder):
        evaluation = config.evaluation
        (task,) = [*evaluation.tasks, *([] if evaluation.running_text is None else [evaluation.text.corpus])]
        asked.append(task)
        (folder / "samples.jsonl").write_text(json.dumps({"task": task, "empty": False, "unparsed": None}) + "\n")
        found = {"metrics": {task: {"n": 1}}, "versions": {task: "1", "lmms-eval": "2"}, "documents": {task: "d"}}
        found |= {"protocol": {"name": "plain"}, "without_deterministic_form": [f"op_{task}", "op"]}
        found |= {"timings": {"evaluation": 2.0}, "memory": {"peak_host_bytes": len(asked), "peak_device_bytes": None}}
        (folder / "evaluation.json").write_text(json.dumps(found))

    monkeypatch.setattr(evaluated, "_answered", answered)
    monkeypatch.setattr("qig.record.write_record", lambda folder, *_: (folder / "r").write_text(""))
    config.quant.weights, config.method = None, "none"
    stages = Stages(Store(tmp_path), "checkpoint", None, "cpu")

    def run(*tasks, corpus=None):
        text = replace(config.evaluation.text, corpus=corpus)
        one = replace(config, evaluation=replace(config.evaluation, tasks=list(tasks), text=text))
        stages.record(one)
        return stages.store.path("evaluation", stages.keys(one).evaluation)

    both = run("a", "b")
    three = run("b", "a", "c", corpus="python_docs")
    assert asked == ["a", "b", "c", "python_docs"]
    found = json.loads((three / "evaluation.json").read_text())
    assert list(found["metrics"]) == ["b", "a", "c", "python_docs"] == list(found["documents"])
    assert found["timings"] == {"evaluation": 8.0} and found["memory"]["peak_host_bytes"] == 4
    assert found["without_deterministic_form"] == ["op", "op_a", "op_b", "op_c", "op_python_docs"]
    assert [row["task"] for row in read_samples(three)] == ["b", "a", "c", "python_docs"]
    alone = run("a")
    assert alone.name in found["parts"] and alone.name in json.loads((both / "evaluation.json").read_text())["parts"]
    assert "parts" not in json.loads((alone / "evaluation.json").read_text()) and len(asked) == 4
    for part in found["parts"]:  # as by qig-runs prune of a run's own
        shutil.rmtree(stages.store.path("evaluation", part))
    shutil.rmtree(stages.store.path("runs", ""))
    run("b", "a", "c", corpus="python_docs")
    assert len(asked) == 4  # what is together already is not taken apart
