"""What a parser could not read, judged by the parsers of lmms-eval themselves."""

import random

import pytest

from qig.evaluation.unparsed import PARSERS, unparsed

MMMU = {"question_type": "multiple-choice", "options": "['red cell', 'blue cell', 'none of them']", "answer": "B"}
SCIENCE = {"choices": ["yes", "no"], "answer": 1}
DIAGRAM = {"options": ["yes", "no", "both"], "answer": "1"}
ANSWERS = [
    "B",
    "(B)",
    "B.",
    "The answer is B",
    "b",
    "",
    "I do not know",
    "D",
    "zzz",
    "it must be the blue cell I think",
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_mmmu_is_unparsed_exactly_where_its_parser_draws(answer, monkeypatch):
    from lmms_eval.tasks.mmmu.utils import mmmu_process_results

    drawn = []
    monkeypatch.setattr(random, "choice", lambda options: drawn.append(options) or options[0])
    mmmu_process_results({**MMMU, "id": "validation_Art_1"}, [answer])
    before = len(drawn)
    assert unparsed("mmmu_val", MMMU, answer) == bool(before)
    assert len(drawn) == before


def test_no_generator_moves():
    state = random.getstate()
    assert unparsed("mmmu_val", MMMU, "zzz")
    assert random.getstate() == state


def test_an_open_question_is_unparsed_only_where_nothing_is_said():
    doc = {"question_type": "open"}
    assert [unparsed("mmmu_val", doc, answer) for answer in ("0.5", " ")] == [False, True]


@pytest.mark.parametrize("answer", ["A", "b", "B. no", "A.", "C", "no", "", "b. no", "The answer is B"])
def test_scienceqa_is_unparsed_exactly_where_no_option_could_make_it_right(answer):
    from lmms_eval.tasks.scienceqa.utils import sqa_process_results

    docs = [{**SCIENCE, "answer": index} for index in range(2)]
    could_be_right = any(sqa_process_results(doc, [answer])["exact_match"] for doc in docs)
    assert unparsed("scienceqa_img", SCIENCE, answer) == (not could_be_right)


@pytest.mark.parametrize("answer", ["A", " b", "D) x", "E", "", "1", "Blue"])
def test_seedbench_is_unparsed_exactly_where_no_option_could_make_it_right(answer):
    from lmms_eval.tasks.seedbench.utils import seed_aggregation_result, seed_process_result

    docs = [{"answer": letter, "data_type": "image", "question_id": 0} for letter in "ABCD"]
    could_be_right = any(seed_aggregation_result([seed_process_result(d, [answer])["seed_all"]]) for d in docs)
    assert unparsed("seedbench", {}, answer) == (not could_be_right)


@pytest.mark.parametrize("answer", ["A", "b", "B. no", "C.", "D", "no", "", "(B)", "The answer is B"])
def test_ai2d_is_unparsed_exactly_where_no_option_could_make_it_right(answer):
    from lmms_eval.api.metrics import exact_match_hf_evaluate
    from lmms_eval.tasks.ai2d.utils import MultiChoiceRegexFilter

    (filtered,) = MultiChoiceRegexFilter().apply([[answer]], [DIAGRAM])
    options = {"ignore_case": True, "ignore_punctuation": True}
    could_be_right = any(
        exact_match_hf_evaluate(predictions=[filtered], references=[letter], **options)["exact_match"]
        for letter in "ABC"
    )
    assert unparsed("ai2d", DIAGRAM, filtered) == (not could_be_right)


def test_free_text_has_no_parser():
    assert unparsed("chartqa", {}, "") is None
    assert set(PARSERS) == {"mmmu_val", "ai2d", "scienceqa_img", "seedbench"}
