import re
from importlib.metadata import version
from types import SimpleNamespace

import filelock
import pytest
from PIL import ImageFile
from tqdm import tqdm

from qig.data.digitgrid import QUESTION_TYPES, evaluation_set
from qig.errors import EvaluationError
from qig.evaluation.benchmark import _records, evaluate
from qig.evaluation.likelihood import answer_nll
from qig.evaluation.protocols import PLAIN
from qig.evaluation.records import documents_hash
from qig.evaluation.registry import TASKS_FOLDER, load_tasks

OPTIONS = {
    "tasks": ["qig_digitgrid"],
    "protocol": "plain",
    "limit": 30,
    "batch_size": 8,
    "seed": 0,
    "nll": True,
}


@pytest.fixture(scope="module")
def result(untrained):
    return evaluate(*untrained("tiny_internvl"), **OPTIONS)


def test_every_question_has_its_record(result, untrained):
    items = evaluation_set(seed=0, images=400, per_type=200)[:30]
    assert [sample["sample"] for sample in result.samples] == [item.id for item in items]
    for sample, item in zip(result.samples, items, strict=True):
        assert sample["task"] == "qig_digitgrid"
        assert (sample["cluster"], sample["type"], sample["target"]) == (item.image_id, item.type, item.answer)
        assert sample["score"] == float(sample["answer"] == item.answer)
        assert sample["empty"] == (sample["answer"] == "")
    model, processor = untrained("tiny_internvl")
    conversations = [
        [{"role": "user", "content": [{"type": "image", "image": i.image}, {"type": "text", "text": i.question}]}]
        for i in items
    ]
    expected = answer_nll(model, processor, conversations, [item.answer for item in items], PLAIN)
    assert [sample["nll"] for sample in result.samples] == pytest.approx(expected, abs=1e-4)


def test_metrics_and_versions(result):
    metrics = result.metrics["qig_digitgrid"]
    assert metrics["n"] == 30
    assert set(metrics["by_type"]) == {sample["type"] for sample in result.samples}
    assert metrics["nll"] == pytest.approx(sum(sample["nll"] for sample in result.samples) / 30)
    assert result.versions == {"lmms-eval": version("lmms-eval"), "qig_digitgrid": "1.0"}


def test_the_documents_that_were_asked_about_are_on_the_record(result):
    """By what they say in words; runs with other documents are not compared."""
    items = evaluation_set(seed=0, images=400, per_type=200)[:30]
    words = ("id", "image_id", "question", "answer", "type")
    docs = [{word: getattr(item, word) for word in words} for item in items]
    assert result.documents == {"qig_digitgrid": documents_hash(docs)}


def test_whether_an_answer_could_be_read_is_asked_of_what_the_tasks_filters_leave():
    """AI2D's takes the letter out of "B. no", which no parser of letters could read."""
    config = SimpleNamespace(metric_list=[{"metric": "exact_match"}], doc_to_target="answer", doc_to_choice=None)
    docs = [{"options": ["yes", "no"], "answer": "B"}] * 2
    task = SimpleNamespace(config=config, eval_docs=docs, eval_docs_no_media=docs, doc_to_target=lambda doc: "B")
    logged = [
        {"doc_id": place, "resps": [[answer]], "filtered_resps": [filtered], "exact_match": score}
        for place, (answer, filtered, score) in enumerate([("B. no", "B", 1.0), ("none", "none", 0.0)])
    ]
    read, unread = _records("ai2d", task, logged)
    assert (read["answer"], read["unparsed"], read["score"]) == ("B. no", False, 1)
    assert (unread["answer"], unread["unparsed"], unread["score"]) == ("none", True, 0)


def test_again_gives_the_same_bits_and_no_noise(result, untrained, capfd):
    again = evaluate(*untrained("tiny_internvl"), **OPTIONS)
    assert again == result
    captured = capfd.readouterr()
    assert "Postprocessing" not in captured.err and "WARNING" not in captured.out + captured.err


def test_likelihood_only_on_request_and_the_limit_keeps_the_first(result, untrained):
    fewer = evaluate(*untrained("tiny_internvl"), **{**OPTIONS, "limit": 5, "nll": False})
    assert [sample["answer"] for sample in fewer.samples] == [sample["answer"] for sample in result.samples[:5]]
    assert {sample["nll"] for sample in fewer.samples} == {None}
    assert fewer.metrics["qig_digitgrid"]["nll"] is None


def test_right_answers_score_one(untrained, monkeypatch):
    model, processor = untrained("tiny_internvl")
    answer = {item.question: item.answer for item in evaluation_set(seed=0, images=400, per_type=200)[:1]}

    def oracle(model, processor, conversations, options, protocol):
        assert options["max_new_tokens"] == 4
        return [answer[conversation[0]["content"][1]["text"]] for conversation in conversations]

    monkeypatch.setattr("qig.evaluation.chat_model.generate_answers", oracle)
    right = evaluate(model, processor, **{**OPTIONS, "limit": 1, "nll": False})
    assert right.metrics["qig_digitgrid"]["accuracy"] == 1


def test_a_typo_is_told_before_the_model_is_touched():
    with pytest.raises(EvaluationError, match="did you mean 'qig_digitgrid'"):
        evaluate(None, None, **{**OPTIONS, "tasks": ["qig_digit_grid"]})


def test_lmms_eval_leaves_nothing_behind(untrained, monkeypatch):
    from lmms_eval import evaluator

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    evaluate(*untrained("tiny_internvl"), **{**OPTIONS, "limit": 1})
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False

    assert evaluator.tqdm is tqdm
    assert "lmms_eval" not in type(filelock.FileLock).__call__.__module__


def test_the_task_file_lists_every_question_type():
    text = (TASKS_FOLDER / "digitgrid" / "qig_digitgrid.yaml").read_text()
    assert re.findall(r"metric: accuracy_(\w+)", text) == list(QUESTION_TYPES)


def test_the_dataset_holds_the_pictures_unchanged():
    _, loaded = load_tasks(["qig_digitgrid"], PLAIN)
    docs = loaded["qig_digitgrid"].eval_docs
    items = evaluation_set(seed=0, images=400, per_type=200)
    assert len(docs) == len(items) == 2200
    for index in (0, 1, 777, 2199):
        assert docs[index]["image"].tobytes() == items[index].image.tobytes()
        assert docs[index]["id"] == items[index].id
    assert "image" not in loaded["qig_digitgrid"].eval_docs_no_media.column_names
