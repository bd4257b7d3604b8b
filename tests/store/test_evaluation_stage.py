"""The evaluation's stage: what is finished stays finished, whenever the process dies."""

from __future__ import annotations

import pytest

from qig import stages
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
