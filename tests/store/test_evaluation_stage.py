"""The evaluation's stage: what is finished stays finished, whenever the process dies."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from qig import stages
from qig.errors import EvaluationError
from qig.evaluation.journal import FOLDER
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

    monkeypatch.setattr(stages, "_answered", answered)
    store = Store(tmp_path)

    def make():
        return store.make("evaluation", "k", lambda folder: stages._evaluate(None, None, None, folder), resumable=True)

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

    monkeypatch.setattr(stages, "_answered", answered)
    monkeypatch.setattr("qig.record.write_record", lambda folder, *_: written.append((folder / "r").write_text("")))
    config.quant.weights, config.method = None, "none"
    one = stages.Stages(Store(tmp_path), "checkpoint", None, "cpu")
    strict = replace(config, evaluation=replace(config.evaluation, max_empty_share=0.4))
    for _ in range(2):
        with pytest.raises(EvaluationError, match=r"1 of 2 answers to a are empty.*max_empty_share"):
            one.record(strict)
    assert not written and not one.has_record(one.keys(strict))
    one.record(replace(config, evaluation=replace(config.evaluation, max_empty_share=0.5)))
    assert len(asked) == len(written) == 1
