"""An evaluation that is killed goes on from its finished batches, and finds what an undisturbed one finds."""

from __future__ import annotations

import json

import pytest
import torch

from qig.evaluation import chat_model as chat_model_module
from qig.evaluation import likelihood
from qig.evaluation.benchmark import evaluate
from qig.evaluation.generation import own_randomness
from qig.evaluation.journal import FOLDER, Journal, discard, spent

OPTIONS = {
    "tasks": ["qig_digitgrid"], "protocol": "plain", "limit": 20, "batch_size": 4, "seed": 0, "nll": True,
}  # fmt: skip


class Killed(BaseException):
    pass


class Counted:
    """``work`` that counts its calls, and is killed at one of them."""

    def __init__(self, work, calls: int | None = None):
        self.work, self.left, self.calls = work, calls, 0

    def __call__(self, *arguments):
        if self.left == self.calls:
            raise Killed
        self.calls += 1
        return self.work(*arguments)


def batches(journal: Journal, work, items=("a", "b", "c", "d")):
    kept = journal.kept("phase", lambda batch: [batch], work)
    return [kept(numbered) for numbered in enumerate(items)]


def doubled(number, batch):
    return [batch * 2, number / 3]


EXPECTED = [["aa", 0.0], ["bb", 1 / 3], ["cc", 2 / 3], ["dd", 1.0]]


def test_batches_of_another_model_or_protocol_do_not_count(tmp_path):
    batches(Journal(tmp_path, identity="one"), doubled)
    other = Counted(lambda number, batch: [batch.upper()])
    assert batches(Journal(tmp_path, identity="other"), other) == [["A"], ["B"], ["C"], ["D"]] and other.calls == 4
    assert batches(Journal(tmp_path, identity="one"), Counted(doubled, 0)) == EXPECTED


def test_nothing_is_done_twice(tmp_path):
    with pytest.raises(Killed):
        batches(Journal(tmp_path), Counted(doubled, 2))
    assert spent(tmp_path) > 0
    again = Counted(doubled)
    assert batches(Journal(tmp_path), again) == EXPECTED and again.calls == 2
    assert batches(Journal(tmp_path), Counted(doubled, 0)) == EXPECTED
    discard(tmp_path)
    assert list(tmp_path.iterdir()) == [] and spent(tmp_path) == 0


@pytest.mark.parametrize("cut", range(1, 40, 6))
def test_a_torn_line_does_not_count_and_spoils_no_other(tmp_path, cut):
    batches(Journal(tmp_path), doubled)
    file = tmp_path / FOLDER / "0.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    again = Counted(doubled)
    assert batches(Journal(tmp_path), again) == EXPECTED and again.calls == 1
    assert batches(Journal(tmp_path), Counted(doubled, 0)) == EXPECTED


@pytest.mark.parametrize("bit", range(0, 8 * 100, 37))
def test_a_flipped_bit_costs_its_batch(tmp_path, bit):
    batches(Journal(tmp_path), doubled)
    file = tmp_path / FOLDER / "0.jsonl"
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    again = Counted(doubled)
    assert batches(Journal(tmp_path), again) == EXPECTED and again.calls == 1


def test_other_batches_are_others(tmp_path):
    batches(Journal(tmp_path), doubled)
    again = Counted(doubled)
    batches(Journal(tmp_path), again, ("b", "a", "c", "d", "a"))
    assert again.calls == 3


def test_what_other_processes_did_counts(tmp_path):
    batches(Journal(tmp_path, 0), doubled, ("a", "b"))
    batches(Journal(tmp_path, 1), doubled, ("a", "b", "c"))
    assert batches(Journal(tmp_path, 0), Counted(doubled, 1)) == EXPECTED


def test_without_a_folder_everything_is_done():
    journal, work = Journal(None), Counted(doubled)
    assert batches(journal, work) == batches(journal, work) == EXPECTED
    assert work.calls == 8


def test_a_folder_that_another_process_took_over(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    journal = Journal(folder)
    folder.rename(tmp_path / "theirs")
    with pytest.raises(FileNotFoundError):
        batches(journal, doubled)


@pytest.mark.parametrize("killed", [("answers", 3), ("likelihoods", 2)])
def test_an_interrupted_evaluation_ends_with_the_same_bits(untrained, monkeypatch, tmp_path, killed):
    model, processor = untrained("tiny_internvl")
    whole = evaluate(model, processor, **OPTIONS)
    phase, calls = killed
    module, name = (
        (chat_model_module, "generate_answers") if phase == "answers" else (likelihood, "answer_nll")
    )
    original = getattr(module, name)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(module, name, Counted(original, calls))
        evaluate(model, processor, folder=tmp_path, **OPTIONS)
    again = Counted(original)
    monkeypatch.setattr(module, name, again)
    resumed = evaluate(model, processor, folder=tmp_path, **OPTIONS)
    assert json.dumps(resumed.samples) == json.dumps(whole.samples) and resumed == whole
    assert again.calls == 5 - calls


def test_a_sampled_batch_draws_from_its_own_numbers():
    def drawn(number):
        with own_randomness(number, torch.device("cpu")):
            return torch.rand(3)

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, second = drawn(0), drawn(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn(1), second) and not torch.equal(first, second)
    torch.manual_seed(2)
    assert not torch.equal(drawn(0), first)
