"""Printed numbers: the data file, the consistency check by independent arithmetic, and what stands beside a cell."""

import csv
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qig.errors import ConfigError
from qig.experiment.spec import Published
from qig.report.published.consistency import ITEMS, possible, published_consistency, rows
from qig.report.published.numbers import FILE, Number, check_published, counterpart, numbers
from qig.report.published.write import write_consistency


def test_every_number_is_there_once_and_none_is_ours():
    keys = Counter((n.paper, n.reported_by, n.table, n.model, n.setting, n.method, n.variant, n.metric)
                   for n in numbers())
    assert len(numbers()) == 1461 and max(keys.values()) == 1
    with FILE.open() as stream:
        assert {row["is_computed_by_us"] for row in csv.DictReader(stream)} == {"0"}


@given(st.integers(0, 3088), st.sampled_from(sorted(ITEMS.values())))
def test_what_a_count_gives_is_possible(right, items):
    right = min(right, items)
    assert possible(f"{100 * right / items:.2f}", items)


@pytest.mark.parametrize("items", sorted(ITEMS.values()))
def test_exactly_the_multiples_are_possible(items):
    """Every two-decimal value below 20%, against exact fractions."""
    half = Fraction(1, 200)
    for cents in range(2000):
        value = Fraction(cents, 100)
        near = {round(value * items / 100) + step for step in (-1, 0, 1)}
        gaps = [Fraction(100 * right, items) - value for right in near if right >= 0]
        expected = any(abs(gap) <= half or 0 <= gap < 2 * half for gap in gaps)  # rounded, or cut off
        assert possible(f"{cents / 100:.2f}", items) == expected


def test_the_contradictions_are_those_that_are_known():
    frame = published_consistency()
    assert frame.attrs["tested"]["count", "qig"] == 145 and frame.attrs["tested"]["count", "bfq"] == 212
    assert Counter(zip(frame["check"], frame["reported_by"], strict=True)) == {
        ("count", "qig"): 10, ("average", "qig"): 2, ("other table", "qig"): 1}
    worst = frame[(frame["check"] == "average") & (frame["model"] == "qwen2_vl_7b")].iloc[0]
    assert (worst["setting"], worst["method"], worst["printed"], worst["expected"]) == ("w3a16", "mbq", "70.15",
                                                                                        "70.39")


def test_an_impossible_accuracy_lies_between_the_two_that_are_named():
    frame = published_consistency()
    for line in frame[frame["check"] == "count"].itertuples():
        near, _, items = line.expected.removesuffix(")").partition(" (of ")
        below, above = map(float, near.split(" or "))
        assert int(items) == ITEMS[line.metric] and below < float(line.printed) < above
        assert above - below == pytest.approx(100 / int(items), abs=1e-4)


@pytest.mark.parametrize(("average", "cell", "fits"), [
    ("70.19", "70.1", True), ("70.22", "70.1", False),  # each of the cells may have been cut off by almost 0.1
    ("70.2", "70.25", True), ("70.1", "70.25", False), ("70.25", "70.25", True), ("70.27", "70.25", True),
    ("70.28", "70.25", False), ("70.0", "70.1", True), ("69.8", "70.1", False),
])
def test_an_average_may_be_off_by_what_rounding_or_cutting_off_explains(monkeypatch, average, cell, fits):
    names = ("mmmu_val", "seedbench", "ocrbench", "vizwiz_vqa_val", "scienceqa_img", "textvqa_val")
    made = tuple(Number("p", "mbq", "T", "m", "w3a16", "mbq", "", metric, value, "")
                 for metric, value in {**dict.fromkeys(names, cell), "average": average}.items())
    monkeypatch.setattr("qig.report.published.consistency.numbers", lambda: made)
    frame = published_consistency()
    assert frame.attrs["tested"] == {("average", "mbq"): 1}  # over the source's own six
    assert frame.empty == fits and (fits or frame["expected"].tolist() == [f"{float(cell):.2f}"])


def test_averages_are_over_the_cells_of_their_own_row():
    for average, cells in rows():
        assert {(c.reported_by, c.table, c.model, c.setting, c.method, c.variant) for c in cells} == {
            (average.reported_by, average.table, average.model, average.setting, average.method, average.variant)}


T2 = Published("qig", "T2", ["average"], {"QIG": "qig"}, {"tiny": "qwen2_vl_7b"})


def test_a_cell_finds_its_counterpart_and_only_there():
    own = counterpart(T2, "QIG", "tiny", "w3a16", "average", {})
    assert own.value == "70.30"
    assert counterpart(T2, "QIG", "qwen2_vl_7b", "w3a16", "average", {}) == own
    assert counterpart(T2, "CWE", "tiny", "w3a16", "average", {}) is None
    assert counterpart(T2, "QIG", "tiny", "w2a16", "average", {}) is None


def test_a_variant_may_name_the_rows_value():
    a3 = Published("qig", "A3", ["average"], {"QIG": {"method": "qig", "variant": "calib=infovqa;n=%(n)s"}},
                   {"tiny": "qwen2_vl_7b"})
    values = {n: counterpart(a3, "QIG", "tiny", "w4a8", "average", {"n": n}) for n in ("128", "256", "64")}
    assert (values["128"].value, values["256"].value, values["64"]) == ("80.97", "81.06", None)


def test_unknown_tables_are_refused():
    with pytest.raises(ConfigError, match="T99"):
        check_published(Published("qig", "T99", ["average"], {}))
    with pytest.raises(ConfigError, match="docvqa"):
        check_published(Published("qig", "T2", ["docvqa"], {}))


def test_the_consistency_table_is_written_the_same_twice(tmp_path):
    first, second = ([file.read_bytes() for file in write_consistency(tmp_path / name)] for name in ("a", "b"))
    assert first == second
    page = first[1].decode()
    assert "10 of 145 accuracies in qig" in page and "transcriptions by others" in page
    assert page.count("| count ") == 10  # each line says what it is
