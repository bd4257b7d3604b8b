"""A task as lmms-eval's own are written: a dataset on disk, several answers, two answer filters, no sample names."""

import pytest
from datasets import Dataset, DatasetDict
from PIL import Image

from qig.errors import EvaluationError
from qig.evaluation import registry
from qig.evaluation.benchmark import evaluate

YAML = """
task: qig_written_like_others
dataset_path: {folder}/data
dataset_kwargs: {{load_from_disk: true}}
test_split: val
output_type: generate_until
doc_to_visual: !function functions.visual
doc_to_text: question
doc_to_target: answer
generation_kwargs: {{until: ["ASSISTANT:"]}}
process_results: !function functions.judge
filter_list:
  - name: first
    filter: [{{function: take_first}}]
  - name: second
    filter: [{{function: regex, regex_pattern: (nothing), fallback: blue}}, {{function: take_first}}]
metric_list:
  - {{metric: submission, aggregation: !function functions.submit, higher_is_better: true}}
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
metadata:
  - version: 0.0
"""
FUNCTIONS = """
def visual(doc):
    return [doc["picture"].convert("RGB")]

def judge(doc, results):
    matches = [answer == results[0] for answer in doc["answers"]]
    return {"submission": {"answer": results[0]}, "exact_match": sum(matches) / len(matches)}

def submit(results, args):
    with open(f"{args.output_path}/submission.json", "w") as file:
        print(results, file=file)
    print("noise")
"""
ANSWERS = [["red", "red", "blue"], ["2", "3", "3"], ["none", "none", "none"]]


@pytest.fixture
def written_like_others(tmp_path, monkeypatch):
    """The path of the only task there is."""
    rows = {
        "picture": [Image.new("RGB", (48, 48), color) for color in ("red", "green", "blue")],
        "question": ["what color is at r1c1 ?", "how many digits ?", "what digit is at r2c2 and r3c3 ?"],
        "answers": ANSWERS,
    }
    DatasetDict({"val": Dataset.from_dict(rows)}).save_to_disk(tmp_path / "data")
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    path = tmp_path / "qig_written_like_others.yaml"
    path.write_text(YAML.format(folder=tmp_path))
    monkeypatch.setattr(registry, "TASKS_FOLDER", tmp_path)
    return path


DRAWN = {"numpys": "numpy.random.rand()", "torchs": "float(torch.rand(()))"}
OPTIONS = {
    "tasks": ["qig_written_like_others"],
    "batch_size": 2,
    "protocol": "plain",
    "seed": 0,
}


def test_its_numbers_and_targets(written_like_others, internvl, monkeypatch, capfd):
    answers = {"what color is at r1c1 ?": "red", "how many digits ?": "3"}  # the second filter makes "blue" of all
    monkeypatch.setattr(
        "qig.evaluation.chat_model.generate_answers",
        lambda model, processor, conversations, options, protocol: [
            answers.get(conversation[0]["content"][1]["text"], " \n") for conversation in conversations
        ],
    )
    result = evaluate(*internvl, **OPTIONS, limit=None, nll=True)
    captured = capfd.readouterr()
    assert "noise" not in captured.out and "WARNING" not in captured.out + captured.err
    assert [sample["score"] for sample in result.samples] == pytest.approx([2 / 3, 2 / 3, 0])
    assert [sample["target"] for sample in result.samples] == ["red", "3", "none"]
    assert [sample["empty"] for sample in result.samples] == [False, False, True]
    assert [sample["sample"] for sample in result.samples] == ["0", "1", "2"]
    assert len({sample["cluster"] for sample in result.samples}) == 3  # a picture each, which nothing names
    assert all(sample["nll"] > 0 for sample in result.samples)
    assert result.metrics["qig_written_like_others"]["empty_share"] == pytest.approx(1 / 3)


def test_another_seed_draws_other_scores_from_every_generator(written_like_others, internvl, monkeypatch):
    """As parsers of unclear answers do."""
    functions = written_like_others.with_name("functions.py")
    drawn = {"exact_match": "random.random()", **DRAWN}
    drawn = "{" + ", ".join(f'"{name}": {how}' for name, how in drawn.items()) + "}"
    text = functions.read_text().replace("matches = [", f"return {drawn}\n    matches = [")
    functions.write_text(f"import random\nimport numpy\nimport torch\n{text}")
    task, _, _ = written_like_others.read_text().partition("metric_list:")
    metrics = [f"  - {{metric: {name}, aggregation: mean, higher_is_better: true}}" for name in ("exact_match", *DRAWN)]
    written_like_others.write_text("\n".join([f"{task}metric_list:", *metrics, "metadata: {version: 1.0}"]))
    monkeypatch.setattr(
        "qig.evaluation.chat_model.generate_answers", lambda _model, _processor, asked, *_: ["red"] * len(asked)
    )

    def numbers(seed: int) -> list[list[float]]:
        rows = evaluate(*internvl, **{**OPTIONS, "seed": seed}, limit=None, nll=False).samples
        return [[row["score"] for row in rows], *([row["sub_scores"][name] for row in rows] for name in DRAWN)]

    first, again, other = numbers(0), numbers(0), numbers(1)
    assert first == again
    assert all(one != another for one, another in zip(first, other, strict=True))


def test_a_task_without_a_number_for_every_sample_is_refused_in_time(written_like_others, internvl, monkeypatch):
    """As MME, each of whose two metrics sees half of the documents."""
    judged = 'return {"perception": 1.0} if doc["answers"][0] == "red" else {"cognition": 0.0}'
    functions = written_like_others.with_name("functions.py")
    functions.write_text(functions.read_text().replace("matches = [", f"{judged}\n    matches = ["))
    text = written_like_others.read_text().replace("submission", "perception").replace("exact_match", "cognition")
    written_like_others.write_text(text)
    asked = []
    monkeypatch.setattr("qig.evaluation.chat_model.generate_answers", lambda *_: asked.append(1))
    with pytest.raises(EvaluationError, match=r"no number for every sample under \['perception', 'cognition'\]"):
        evaluate(*internvl, **OPTIONS, limit=2, nll=False)
    assert not asked


def test_what_a_task_makes_of_an_empty_answer_is_not_held_against_it(written_like_others, internvl, monkeypatch):
    functions = written_like_others.with_name("functions.py")
    functions.write_text(functions.read_text().replace("matches = [", 'results[0][0]\n    matches = ['))
    monkeypatch.setattr(
        "qig.evaluation.chat_model.generate_answers", lambda _model, _processor, asked, *_: ["red"] * len(asked)
    )
    assert [row["score"] for row in evaluate(*internvl, **OPTIONS, limit=2, nll=False).samples] == [2 / 3, 0]


def test_a_task_that_ranks_options_is_refused(written_like_others, internvl):
    text = written_like_others.read_text().replace("output_type: generate_until", "output_type: multiple_choice")
    written_like_others.write_text(text.replace('generation_kwargs: {until: ["ASSISTANT:"]}', "doc_to_choice: answers"))
    with pytest.raises(EvaluationError, match="of type 'multiple_choice'; expected 'generate_until'"):
        evaluate(*internvl, **OPTIONS, limit=None, nll=False)
