from types import SimpleNamespace

import numpy as np
import pytest

from qig.errors import EvaluationError, UnscoredError
from qig.evaluation.scores import check_scored, main_metric, metric_values


def main_scores(task, metrics, logged):
    values = metric_values(task, metrics, logged)
    return values[main_metric(task, values)]


@pytest.mark.parametrize(
    ("task", "metrics", "logged", "expected"),
    [
        ("vizwiz_vqa_val", ["exact_match"], {"exact_match": 0.6, "submission": {"image": "a"}}, 0.6),
        ("chartqa", ["relaxed_overall", "relaxed_human_split"], {"relaxed_overall": 1.0, "relaxed_human_split": 0}, 1),
        ("ai2d", ["exact_match"], {"exact_match": True}, 1),
        ("textvqa_val", ["exact_match", "submission"], {"exact_match": np.float64(0.3), "submission": {}}, 0.3),
        ("ocrbench", ["ocrbench_accuracy"], {"ocrbench_accuracy": {"question_type": "x", "score": 1}}, 1),
        ("seedbench", ["seed_image", "seed_all"], {"seed_all": {"pred": "b ", "answer": "B"}}, 1),
        ("seedbench", ["seed_image", "seed_all"], {"seed_all": {"pred": "A", "answer": "B"}}, 0),
        ("other", ["submission", "acc"], {"submission": {"answer": "x"}, "acc": 0}, 0),
    ],
)
def test_one_number_a_sample(task, metrics, logged, expected):
    assert main_scores(task, metrics, [logged, logged]) == [expected, expected]


@pytest.mark.parametrize(("documents", "limit"), [(2374, None), (10, None), (2374, 150), (3, None)])
def test_metrics_that_see_one_category_each_are_found_wherever_the_other_stands(documents, limit):
    """As in MME, whose first and last questions are of one half, and those between of the other."""
    halves = ["cognition"] + ["perception"] * ((limit or documents) - 2) + ["cognition"] * documents
    metrics = SimpleNamespace(metric_list=[{"metric": "cognition"}, {"metric": "perception"}])
    judged = []

    def process_results(doc, answers):
        judged.append(doc)
        return {doc: 0.0}

    task = SimpleNamespace(eval_docs_no_media=halves[:documents], config=metrics, process_results=process_results)
    with pytest.raises(UnscoredError, match=r"no number for every sample under \['cognition', 'perception'\]"):
        check_scored("halves", task, limit)
    assert len(judged) <= 65


@pytest.mark.parametrize(
    ("kind", "answer", "parsed", "expected"),
    [
        ("multiple-choice", "B", ["B"], 1),
        ("multiple-choice", "B", ["C"], 0),
        ("open", "0.5", [[0.5]], 1),
        ("open", "['cell', 'cells']", [["a cell wall"]], 0),
    ],
)
def test_mmmu_is_judged_by_its_own_rules(kind, answer, parsed, expected):
    value = {"id": "1", "subdomain": "Art", "question_type": kind, "answer": answer, "parsed_pred": parsed}
    assert main_scores("mmmu_val", ["mmmu_acc"], [{"mmmu_acc": value}]) == [expected]


def test_one_metric_serves_all_samples():
    logged = [{"human": 1.0, "all": 0.0}, {"all": 1.0}]
    assert main_scores("other", ["human", "all"], logged) == [0, 1]


def test_a_task_without_a_number_is_refused():
    with pytest.raises(EvaluationError, match=r"'other' logs no number .*\['submission', 'acc'\].*JUDGED"):
        main_scores("other", ["submission", "acc"], [{"submission": {"answer": "x"}, "acc": "right"}])


def task_of(name):
    """A preset's own functions, as its YAML names them, without its data."""
    from lmms_eval.utils import load_yaml_config

    from qig.evaluation import index

    return load_yaml_config(str(index.find(name)), mode="full")


SEED = [{"question_id": i, "data_type": kind, "answer": "B"} for i, kind in enumerate(("image", "image", "video"))]
ART = {"question_type": "multiple-choice", "options": "['x', 'y']"}
REPORTED = {
    "chartqa": (
        [{"type": kind, "answer": "10"} for kind in ("human_test", "human_test", "augmented_test")],
        ["10.4", "11", "ten"],
    ),
    "vizwiz_vqa_val": ([{"question_id": i, "answers": ["red"] * 2 + ["blue"] * 8} for i in range(2)], ["red", "Blue"]),
    "textvqa_val": ([{"question_id": i, "answers": ["red"] * 2 + ["blue"] * 8} for i in range(2)], ["red", "Blue"]),
    "scienceqa_img": ([{"choices": ["a", "b"], "answer": 1}] * 3, ["B", "a", "B. b"]),
    "seedbench": (SEED, ["B", "A", "b) two"]),
    "mmmu_val": ([{**ART, "id": f"validation_Art_{i}", "answer": "B"} for i in range(3)], ["B", "A", "(B)"]),
}


@pytest.mark.parametrize("name", REPORTED)
def test_means_are_what_lmms_eval_reports(name):
    """Its own processing and aggregation of the preset's task, on made-up documents."""
    config = task_of(name)
    docs, answers = REPORTED[name]
    logged = [config["process_results"](dict(doc), [answer]) for doc, answer in zip(docs, answers, strict=True)]
    metrics = [metric["metric"] for metric in config["metric_list"]]
    values = metric_values(name, metrics, logged)
    assert 0 < np.mean(values[main_metric(name, values)]) < 1
    for metric in config["metric_list"]:
        numbers = [value for value in values[metric["metric"]] if value is not None]
        if metric["metric"] == "submission":
            assert not numbers
            continue
        items = [sample[metric["metric"]] for sample in logged if metric["metric"] in sample]
        aggregate = np.mean if metric["aggregation"] == "mean" else metric["aggregation"]
        assert np.mean(numbers) == pytest.approx(aggregate(items), abs=1e-5)


def test_ocrbench_is_reported_over_its_thousand_questions(tmp_path):
    from argparse import Namespace

    config = task_of("ocrbench")
    doc = {"answer": ["blue"], "dataset": "x", "question_type": "Regular Text Recognition"}
    logged = [config["process_results"](doc, [answer]) for answer in ("so blue", "red", "blue")]
    values = metric_values("ocrbench", ["ocrbench_accuracy"], logged)
    assert values == {"ocrbench_accuracy": [1, 0, 1]}
    (metric,) = config["metric_list"]
    reported = metric["aggregation"](
        [sample["ocrbench_accuracy"] for sample in logged], Namespace(output_path=tmp_path)
    )
    assert reported == 2 / 1000
