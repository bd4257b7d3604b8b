from types import SimpleNamespace

import pytest

from qig.evaluation.records import documents_hash, sample_records, target_text


def test_names_of_the_dataset_are_kept_where_unique():
    docs = [{"id": 7, "image_id": "a", "type": "count"}, {"id": 8, "image_id": "a", "type": None}]
    assert sample_records("t", docs, [0, 1]) == [
        {"task": "t", "sample": "7", "cluster": "a", "type": "count"},
        {"task": "t", "sample": "8", "cluster": "a", "type": ""},
    ]


@pytest.mark.parametrize("docs", [[{"question_id": 1}, {"question_id": 1}], [{"question_id": 1}, {}]])
def test_places_in_the_split_serve_otherwise(docs):
    records = sample_records("t", docs, [3, 9])
    assert [(record["sample"], record["cluster"]) for record in records] == [("3", "3"), ("9", "9")]


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
