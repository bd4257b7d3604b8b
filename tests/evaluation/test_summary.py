from types import SimpleNamespace

import pytest

from qig.errors import EvaluationError
from qig.evaluation.summary import check_answers, summarize

ROW = {"task": "a", "sample": "1", "type": "", "metric": "acc", "score": 1.0, "sub_scores": {}, "nll": None}
ROW |= {"empty": False, "unparsed": None}


def test_several_tasks():
    samples = [ROW, {**ROW, "task": "b", "score": 0.5, "empty": True, "nll": 2.0, "metric": "exact"}]
    assert summarize(samples) == {
        "a": {
            "metric": "acc",
            "accuracy": 1.0,
            "sub_scores": {},
            "by_type": {},
            "nll": None,
            "empty_share": 0,
            "unparsed_share": None,
            "n": 1,
        },
        "b": {
            "metric": "exact",
            "accuracy": 0.5,
            "sub_scores": {},
            "by_type": {},
            "nll": 2.0,
            "empty_share": 1,
            "unparsed_share": None,
            "n": 1,
        },
    }


def test_a_sub_score_is_over_the_samples_it_speaks_of():
    samples = [
        {**ROW, "score": 1.0, "sub_scores": {"human": 1.0}, "type": "human"},
        {**ROW, "score": 0.0, "sub_scores": {"human": 0.0}, "type": "human"},
        {**ROW, "score": 1.0, "sub_scores": {"augmented": 1.0}, "type": "augmented"},
    ]
    found = summarize(samples)["a"]
    assert found["sub_scores"] == {"human": 0.5, "augmented": 1.0} == found["by_type"]
    assert found["accuracy"] == pytest.approx(2 / 3)


def test_the_likelihood_is_over_the_answers_that_have_one():
    """MMMU and others have questions without a right answer in words."""
    samples = [{**ROW, "nll": 3.0}, {**ROW, "nll": None}, {**ROW, "nll": 1.0}, {**ROW, "nll": None}]
    assert summarize(samples)["a"]["nll"] == 2.0


def test_the_share_of_unparsed_answers_is_over_those_that_can_be_known():
    samples = [{**ROW, "unparsed": True}, {**ROW, "unparsed": False}, {**ROW, "unparsed": None}]
    assert summarize(samples)["a"]["unparsed_share"] == 0.5


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("empty", r"2 of 4 answers to a are empty, more than the share of 0\.25 .*max_empty_share; .* those to 2, 3"),
        ("unparsed", r"2 of 4 answers to a name no option, more than the share of 0\.25 .*max_unparsed_share"),
    ],
)
def test_too_many_answers_that_say_nothing(key, message):
    samples = [{**ROW, "sample": str(index), key: index > 1} for index in range(4)]
    check_answers(samples, SimpleNamespace(max_empty_share=0.5, max_unparsed_share=0.5))
    with pytest.raises(EvaluationError, match=message):
        check_answers(samples, SimpleNamespace(max_empty_share=0.25, max_unparsed_share=0.25))
