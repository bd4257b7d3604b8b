"""``python -m qig.evaluation``."""

import json

import pytest

from qig.evaluation.__main__ import main


def called(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["qig.evaluation", *map(str, arguments)])
    main()


def test_a_checkpoint_is_evaluated_into_a_folder(monkeypatch, internvl, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    for part in internvl:
        part.save_pretrained(checkpoint)
    options = ["evaluation.limit=3", "evaluation.nll=false", "evaluation.max_empty_share=1", "device=cpu"]
    called(monkeypatch, checkpoint, tmp_path / "found", *options)
    assert len((tmp_path / "found" / "samples.jsonl").read_text().splitlines()) == 3
    found = json.loads((tmp_path / "found" / "evaluation.json").read_text())
    assert found["metrics"]["qig_digitgrid"]["n"] == 3 and found["protocol"]["name"] == "plain"


def test_what_another_checkpoint_left_in_the_folder_is_not_taken_for_this_ones(monkeypatch, internvl, tmp_path):
    """As behind an evaluation that was interrupted, or whose answers were refused."""
    model, processor = internvl
    identities = []
    monkeypatch.setattr("qig.evaluation.parallel.evaluate_into", lambda *given: identities.append(given[-1]))
    monkeypatch.setattr("qig.evaluation.parallel.read_samples", lambda _folder: [])
    for name, change in (("one", 0.0), ("other", 0.25)):
        model.lm_head.weight.data[0, 0] += change
        model.save_pretrained(tmp_path / name)
        processor.save_pretrained(tmp_path / name)
    options = ["evaluation.limit=3", "device=cpu", "threads=1"]
    for checkpoint, *more in (
        ("one",), ("one",), ("other",), ("one", "evaluation.nll=false"), ("one", "evaluation.processes=2")
    ):  # fmt: skip
        called(monkeypatch, tmp_path / checkpoint, tmp_path / "found", *options, *more)
    first, again, other, without, shared = identities
    assert first == again == shared and len({first, other, without}) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["checkpoint", "found", "evaluation.batch_size=0"], r"error: evaluation\.batch_size=0: expected 1 or more"),
        (["checkpoint", "found", "evaluation.seed=-1"], r"error: evaluation\.seed=-1"),
        (["/no/such/checkpoint", "found"], "error: checkpoint directory '/no/such/checkpoint' does not exist"),
        (["checkpoint", "found", "evaluation=papr"], "error: .*papr"),
        (["checkpoint", "found", "evaluation.limits=3"], "error: .*limits"),
    ],
)
def test_mistakes_are_one_message(monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        called(monkeypatch, *arguments)
    assert not list(tmp_path.rglob("*.json"))


def test_help_shows_how_several_processes_share_the_work(monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        called(monkeypatch, "--help")
    assert ended.value.code == 0
    assert "accelerate launch --num_processes 8 -m qig.evaluation" in capsys.readouterr().out
