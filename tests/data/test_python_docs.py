"""Python's own documentation in two parts that share no document and no paragraph."""

from __future__ import annotations

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
