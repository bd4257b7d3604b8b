from types import SimpleNamespace

import pytest
from datasets import Dataset, Features, List
from datasets import Image as Picture
from PIL import Image

from qig.evaluation.records import documents_hash, picture_hashes, sample_records, target_text


def test_names_of_the_dataset_are_kept_where_unique():
    docs = [{"id": 7, "image_id": "a", "type": "count"}, {"id": 8, "image_id": "a", "type": None}]
    assert sample_records("t", docs, [0, 1], ["p", "p"]) == [
        {"task": "t", "sample": "7", "cluster": "a", "type": "count"},
        {"task": "t", "sample": "8", "cluster": "a", "type": ""},
    ]


@pytest.mark.parametrize("docs", [[{"question_id": 1}, {"question_id": 1}], [{"question_id": 1}, {}]])
def test_places_in_the_split_serve_otherwise(docs):
    records = sample_records("t", docs, [3, 9], ["", ""])
    assert [(record["sample"], record["cluster"]) for record in records] == [("3", "3"), ("9", "9")]


def test_questions_about_one_picture_are_a_cluster_where_the_dataset_does_not_name_it():
    """ChartQA and AI2D name no pictures, and ask several questions about each."""
    red, blue = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    split = Dataset.from_dict({"image": [red, blue, red, None], "question": ["a", "b", "c", "d"]})
    one, two, three, four = picture_hashes(split, [0, 1, 2, 3])
    assert one == three != two and one and two and four == ""
    assert picture_hashes(split, [2, 1]) == [three, two]
    records = sample_records("t", [{}, {}, {}, {}], range(4), [one, two, three, four])
    assert [record["cluster"] for record in records] == [one, two, one, "3"]


def test_a_document_may_have_several_pictures_or_none():
    red, blue = (Image.new("RGB", (4, 4), color) for color in ("red", "blue"))
    rows = {"a": [red, red, red], "b": [blue, None, blue], "more": [[red, blue], [], [blue, red]]}
    features = Features({"a": Picture(), "b": Picture(), "more": List(Picture())})
    assert len(set(picture_hashes(Dataset.from_dict(rows, features), range(3)))) == 3
    assert picture_hashes(Dataset.from_dict({"text": ["x"]}), [0]) == picture_hashes([{"text": "x"}], [0]) == [""]


def task(rule, target=None, choice=None):
    config = SimpleNamespace(doc_to_target=rule, doc_to_choice=choice)
    return SimpleNamespace(config=config, doc_to_target=lambda doc: target, doc_to_choice=lambda doc: choice)


@pytest.mark.parametrize(
    ("task", "doc", "expected"),
    [
        (task("answer", "red "), {"answer": "red "}, "red"),
        (task("answer", "answer"), {"answers": ["a", "b", "b"]}, "b"),
        (task("answer", "answer"), {"answers": None}, ""),
        (task("{{label}}", "yes"), {"label": 1}, "yes"),
        (task(lambda doc: 1, 1, ["no", "yes"]), {}, "yes"),
        (task(lambda doc: 3, 3), {}, "3"),
        (task(lambda doc: [], []), {}, ""),
        (task("answer", "['cell', 'cells']"), {"answer": ""}, "cell"),
        (task("answer", "[0.2, 0.5]"), {"answer": ""}, "[0.2, 0.5]"),
        (task("answer", "[]"), {"answer": ""}, "[]"),
        (task("answer", "[it's]"), {"answer": ""}, "[it's]"),
        pytest.param(task("answer", "[" * 9999 + "]"), {"answer": ""}, "[" * 9999 + "]", id="nest"),
    ],
)
def test_target_in_words(task, doc, expected):
    assert target_text(task, doc) == expected


def test_documents_are_hashed_by_what_they_say():
    docs = [{"question": "How many?", "choices": ["1", "2"], "picture": object()}, {"question": "Which?", "n": 2}]
    same = [{"picture": object(), "choices": ("1", "2"), "question": "How many?"}, {"n": 2, "question": "Which?"}]
    assert documents_hash(docs) == documents_hash(same)
    others = [{**docs[0], "choices": ["1", "3"]}, docs[1]], [docs[0], {**docs[1], "n": "2"}]
    for other in (docs[::-1], docs[:1], *others):
        assert documents_hash(other) != documents_hash(docs)
