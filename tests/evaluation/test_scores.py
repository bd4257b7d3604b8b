import numpy as np
import pytest

from qig.errors import EvaluationError
from qig.evaluation.scores import main_metric, metric_values


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
