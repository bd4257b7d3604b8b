"""Tasks of the user's own, in a folder beside the package."""

from __future__ import annotations

import json

import pytest

from qig.config.sources import folder_content
from qig.errors import EvaluationError
from qig.evaluation.benchmark import evaluate
from qig.evaluation.registry import check_tasks
from qig.stages import identity

TASK = """\
task: my_digits
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.picture
doc_to_text: question
doc_to_target: answer
generation_kwargs: {max_new_tokens: 4, do_sample: false}
process_results: !function utils.scored
metric_list: [{metric: starts_alike, aggregation: mean, higher_is_better: true}]
metadata: {version: 3.0}
"""
UTILS = """\
from PIL import Image


def picture(doc):
    return [Image.open(doc["file"]).convert("RGB")]


def scored(doc, results):
    return {"starts_alike": float(results[0].strip()[:1] == doc["answer"][:1])}
"""


@pytest.fixture
def mine(tmp_path, questions):
    """A folder with one task: the first eight questions about DigitGrid's pictures, from files."""
    rows = []
    for number, question in enumerate(questions[:8]):
        question.image.save(tmp_path / f"{number}.png")
        row = {"id": f"mine-{number}", "file": str(tmp_path / f"{number}.png")}
        rows.append(row | {"question": question.question, "answer": question.answer})
    folder = tmp_path / "mine"
    (folder / "digits").mkdir(parents=True)
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "digits" / "my_digits.yaml").write_text(TASK.replace("DATA", str(data)))
    (folder / "digits" / "utils.py").write_text(UTILS)
    (folder / "digits" / "both.yaml").write_text("group: my_group\ntask: [my_digits, qig_digitgrid]\n")
    return folder


OPTIONS = {"protocol": "plain", "limit": None, "batch_size": 4, "seed": 0, "nll": True}


def test_its_questions_are_asked_and_judged_by_its_own_functions(mine, untrained, questions):
    result = evaluate(*untrained("tiny_internvl"), tasks=["my_digits"], include_path=str(mine), **OPTIONS)
    assert [sample["sample"] for sample in result.samples] == [f"mine-{number}" for number in range(8)]
    assert result.versions["my_digits"] == "3.0"
    for sample, question in zip(result.samples, questions, strict=False):
        assert sample["target"] == question.answer and sample["metric"] == "starts_alike"
        assert sample["score"] == float(sample["answer"][:1] == question.answer[:1]) and sample["nll"] > 0


def test_names_in_the_folder_are_tasks_and_others_are_still_known(mine):
    check_tasks(["my_digits", "qig_digitgrid", "chartqa"], str(mine))
    check_tasks(["my_group"], str(mine))
    with pytest.raises(EvaluationError, match=r"unknown task 'my_digit' \(did you mean 'my_digits'\?\)"):
        check_tasks(["my_digit"], str(mine))
    with pytest.raises(EvaluationError, match="unknown task 'my_digits'"):
        check_tasks(["my_digits"])


def test_a_folder_that_cannot_be_meant_is_refused(mine, tmp_path):
    with pytest.raises(EvaluationError, match=r"evaluation\.include_path=\S+nowhere: no such folder"):
        check_tasks(["chartqa"], str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvaluationError, match="expected YAML files of tasks"):
        check_tasks(["chartqa"], str(tmp_path / "empty"))
    (mine / "chartqa.yaml").write_text("task: chartqa\n")
    with pytest.raises(EvaluationError, match=r"name them otherwise, for there are others: chartqa$"):
        check_tasks(["my_digits"], str(mine))


def test_the_folders_content_enters_the_identity_of_its_tasks_answers_alone(mine, compose, tmp_path):
    def key(task, folder):
        folder_content.cache_clear()
        words = [f"evaluation.tasks=[{task}]", *([] if folder is None else [f"evaluation.include_path={folder}"])]
        return identity.evaluation_key(compose(*words), {}, None)

    moved = tmp_path / "moved"
    before = key("my_digits", mine)
    assert key("qig_digitgrid", mine) == key("qig_digitgrid", None)
    mine.rename(moved)
    assert key("my_digits", moved) == before
    (moved / "digits" / "utils.py").write_text(UTILS.replace("[:1]", "[:2]"))
    assert key("my_digits", moved) != before
