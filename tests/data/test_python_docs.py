"""Python's own documentation in two parts that share no document and no paragraph."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

from qig.data import python_docs
from qig.data.python_docs import CALIBRATION, EVALUATION, LENGTH, content_hash, part_of, passages
from qig.data.sets import check_available, read
from qig.data.sets import content_hash as set_hash
from qig.errors import DataError


def paragraphs(part: str) -> set[str]:
    return {" ".join(text.split()) for passage in passages(part) for text in passage.text.split("\n\n")}


def test_both_parts_are_large_and_of_both_kinds():
    for part in (CALIBRATION, EVALUATION):
        assert len(passages(part)) > 100
        assert {passage.document.partition("/")[0] for passage in passages(part)} == {"topics", "modules"}
        assert len({passage.name for passage in passages(part)}) == len(passages(part))
        assert all(
            len(passage.text) >= LENGTH and passage.name.startswith(passage.document) for passage in passages(part)
        )


def test_parts_share_neither_documents_nor_paragraphs():
    calibration, evaluation = ({passage.document for passage in passages(part)} for part in (CALIBRATION, EVALUATION))
    assert not calibration & evaluation
    assert all(part_of(name) == CALIBRATION for name in calibration)
    assert not paragraphs(CALIBRATION) & paragraphs(EVALUATION)


def test_a_paragraph_of_both_parts_stays_in_the_evaluation_alone(monkeypatch):
    one, other = (
        next(f"topics/{i}" for i in range(99) if part_of(f"topics/{i}") == p) for p in (CALIBRATION, EVALUATION)
    )
    both, alone = "same  words " * 200, "other words " * 300
    texts = {one: f"{both}\n\n{alone}", other: f"   {' '.join(both.split())}\n\n{alone.upper()}"}
    monkeypatch.setattr(python_docs, "_documents", lambda: texts)
    kept = {
        part: "\n\n".join(python_docs._part(part)[name]) for part, name in ((CALIBRATION, one), (EVALUATION, other))
    }
    assert kept[CALIBRATION] == alone
    assert "same words" in kept[EVALUATION] and "OTHER" in kept[EVALUATION]


@pytest.fixture
def library(monkeypatch):
    """``library(documents)`` is what Python comes with, for one test."""

    def forget():
        passages.cache_clear(), content_hash.cache_clear()

    def set_to(documents: dict[str, list[str]]):
        forget()
        texts = {name: "\n\n".join(paragraphs) for name, paragraphs in documents.items()}
        monkeypatch.setattr(python_docs, "_documents", lambda: texts)

    yield set_to
    forget()


def documents_of(part: str, count: int) -> dict[str, list[str]]:
    """Of seven paragraphs each; three of them are the first to reach the length of a passage."""
    names = [name for name in (f"topics/{i}" for i in range(99)) if part_of(name) == part][:count]
    return {name: [f"{name} {i} ".ljust(LENGTH * 2 // 5, "x") for i in range(7)] for name in names}


@pytest.mark.parametrize("part", [CALIBRATION, EVALUATION])
def test_each_paragraph_of_a_document_is_in_one_passage_in_its_order(library, part):
    documents = documents_of(part, 5)
    library(documents)
    for name, paragraphs in documents.items():
        mine = sorted((p for p in passages(part) if p.document == name), key=lambda p: int(p.name.partition("#")[2]))
        assert [p.text for p in mine] == ["\n\n".join(paragraphs[:3]), "\n\n".join(paragraphs[3:6])]


def test_the_first_passages_are_those_of_any_documents(library):
    """A limit would otherwise keep the first topics of the alphabet, and no module."""
    library(documents_of(EVALUATION, 5))
    found = [passage.name for passage in passages(EVALUATION)]
    assert found == sorted(found, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert len({name.partition("#")[0] for name in found[:5]}) > 3


def test_the_hash_sees_every_text_that_is_asked_for(library):
    documents = documents_of(EVALUATION, 2)
    hashes = []
    for paragraph in range(7):
        changed = {name: list(paragraphs) for name, paragraphs in documents.items()}
        changed[min(changed)][paragraph] = changed[min(changed)][paragraph].upper()
        library(changed)
        hashes.append(content_hash(EVALUATION))
    library(documents)
    assert hashes[6] == content_hash(EVALUATION)  # behind the last passage
    assert len(set(hashes)) == 7


def test_docstrings_stand_in_the_order_of_the_source(tmp_path):
    file = tmp_path / "module.py"
    file.write_text(
        '"""One."""\n\n\nclass A:\n    """Two."""\n\n    def f(self):\n        """Three."""\n\n\n'
        'async def g():\n    """Four."""\n    "no docstring"\n\n\ndef h():\n    pass\n'
    )
    assert python_docs._docstrings(file) == "One.\n\nTwo.\n\nThree.\n\nFour."


def test_another_process_finds_the_same():
    """String hashes differ between processes; the split and the order must not."""
    code = "from qig.data.python_docs import *; print(content_hash(CALIBRATION), content_hash(EVALUATION))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert found == [content_hash(CALIBRATION), content_hash(EVALUATION)] and found[0] != found[1]


def test_calibration_set(compose):
    config = compose("calibration=python_docs", "calibration.samples=7").calibration
    check_available(config)
    samples = read(config).samples
    known = {passage.name: passage.text for passage in passages(CALIBRATION)}
    assert len({sample.id for sample in samples}) == 7
    assert all(
        sample.segments[0].text == known[sample.id] and sample.segments[0].max_tokens == 256 for sample in samples
    )
    other = compose("calibration=python_docs", "calibration.samples=7", "seed=1").calibration
    assert {sample.id for sample in read(other).samples} != {sample.id for sample in samples}
    assert set_hash(config) != set_hash(other)


def test_more_samples_than_there_are(compose):
    with pytest.raises(DataError, match=r"documentation has \d+ samples, but 100000 are asked for"):
        read(compose("calibration=python_docs", "calibration.samples=100000").calibration)
