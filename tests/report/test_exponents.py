"""How far weights move the search, counted in a folder as ``results/`` has it."""

import json
import shutil
from pathlib import Path

import pytest

from qig.errors import StoreError
from qig.report.exponents import data, main

PLACES = [(0, "attn_in"), (0, "mlp_in"), (1, "attn_in"), (1, "mlp_in")]
CHOSEN = {  # per arm and calibration seed, in the order of the places
    "Uniform": ([0.2, 0.4, 0.2, 0.4], [0.2, 0.4, 0.2, 0.6]),
    "Gradient": ([0.2, 0.4, 0.2, 0.4], [0.4, 0.6, 0.2, 0.6]),
}


def site(place, exponent, searched=True):
    tried = {"exponents": [0.2, 0.4, 0.6], "exponent": exponent} if searched else {"exponents": [], "exponent": None}
    return {"block": place[0], "site": place[1], **tried}


@pytest.fixture
def folder(tmp_path):
    """``real_weights`` with two arms and two seeds, their records beside it; attn_out was not searched."""
    (tmp_path / "records").mkdir()
    cells = []
    for arm, seeds in CHOSEN.items():
        for seed, exponents in enumerate(seeds):
            sites = [site(place, exponent) for place, exponent in zip(PLACES, exponents, strict=True)]
            record = {"sites": [*sites, site((0, "attn_out"), None, searched=False)]}
            (tmp_path / "records" / f"{arm}{seed}.json").write_text(json.dumps(record))
        for metric in ("nll", "accuracy"):
            cell = {"quant": "w3a16_g64", "method": "awq", "arm": arm, "metric": metric, "runs": [f"{arm}0", f"{arm}1"]}
            cells.append(cell if arm == "Uniform" else cell | {"vs_Uniform_runs": ["Uniform0", "Uniform1"]})
    made = tmp_path / "real_weights"
    made.mkdir()
    (made / "real_weights.json").write_text(json.dumps({"experiment": "real_weights", "overrides": [], "cells": cells}))
    return made


def test_arms_are_compared_with_the_control_of_the_same_seed(folder):
    frame, _ = data(folder)
    rows = frame.set_index("arm").to_dict("index")
    assert list(rows) == ["Uniform", "Gradient"]  # once, not once a metric
    gradient = rows["Gradient"]
    assert (gradient["pairs"], gradient["inputs"]) == (2, 4)
    assert (gradient["moved"], gradient["least"], gradient["most"]) == (0.25, 0, 0.5)
    assert (gradient["attn_in"], gradient["mlp_in"]) == (0.25, 0.25)
    uniform = rows["Uniform"]  # seed 0 beside seed 1
    assert (uniform["pairs"], uniform["moved"], uniform["attn_in"], uniform["mlp_in"]) == (1, 0.25, 0, 0.5)


def test_the_page_has_labels_and_the_command_writes_it_with_the_numbers(folder, capsys):
    assert main([str(folder)]) == 0
    assert [line.rpartition("/")[2] for line in capsys.readouterr().out.split()] == ["exponents.csv", "exponents.md"]
    page = (folder / "exponents.md").read_text()
    assert "W3 g64" in page and "search: loss" in page and "Uniform, other seeds" in page and "0.0 to 50.0" in page
    assert (folder / "exponents.csv").read_text().startswith("quant,method,arm,pairs,inputs,moved,least,most,attn_in")


def test_with_one_seed_the_control_has_no_row(folder):
    file = folder / "real_weights.json"
    found = json.loads(file.read_text())
    for cell in found["cells"]:
        cell |= {key: ids[:1] for key, ids in cell.items() if key.endswith("runs")}
    file.write_text(json.dumps(found))
    assert list(data(folder)[0]["arm"]) == ["Gradient"]


def record_of(folder, run, sites):
    (folder.parent / "records" / f"{run}.json").write_text(json.dumps({"sites": sites}))


def test_an_arm_that_was_searched_elsewhere_or_not_at_all_has_no_row(folder, capsys):
    found = json.loads((folder / "real_weights.json").read_text())
    for arm, places in {"GPTQ": [], "Fewer": PLACES[:3]}.items():
        named = {"quant": "w3a16_g64", "method": "awq", "arm": arm, "metric": "nll"}
        found["cells"].append(named | {"runs": [f"{arm}0"], "vs_Uniform_runs": ["Uniform0"]})
        record_of(folder, f"{arm}0", [site(place, 0.2) for place in places])
    (folder / "real_weights.json").write_text(json.dumps(found))
    assert list(data(folder)[0]["arm"]) == ["Uniform", "Gradient"]
    for seed in range(2):
        record_of(folder, f"Gradient{seed}", [])
    assert main([str(folder)]) == 1
    assert "no arm was searched where Uniform was" in capsys.readouterr().err


def test_what_is_not_there_is_told(folder, capsys):
    (folder.parent / "records" / "Gradient1.json").unlink()
    assert main([str(folder)]) == 1
    assert "record of run Gradient1 is not in" in capsys.readouterr().err
    assert main([str(folder.parent)]) == 1
    assert "holds no table of an experiment" in capsys.readouterr().err
    file = folder / "real_weights.json"
    file.write_text(file.read_text().replace('"experiment": "real_weights"', '"experiment": "findings"'))
    with pytest.raises(StoreError, match="experiment findings has no arms and control to compare"):
        data(folder)


RESULTS = Path(__file__).parents[2] / "results"


@pytest.mark.parametrize("page", sorted(RESULTS.glob("*/exponents.md")), ids=lambda page: page.parent.name)
def test_committed_pages_are_those_of_the_committed_records(page, tmp_path, monkeypatch, capsys):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "records").symlink_to(RESULTS / "records")
    shutil.copytree(page.parent, tmp_path / "results" / page.parent.name)
    monkeypatch.chdir(tmp_path)
    assert main([f"results/{page.parent.name}"]) == 0
    for name in ("exponents.md", "exponents.csv"):
        assert (tmp_path / "results" / page.parent.name / name).read_text() == page.with_name(name).read_text()
