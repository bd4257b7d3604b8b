"""Which runs a model card sets beside its own."""

import runpy
from pathlib import Path

import pytest

from qig.export.card import _beside_baselines, _front_matter
from qig.report.records import load_run

FABRICATED = runpy.run_path(str(Path(__file__).parents[1] / "report" / "fabricated.py"))


@pytest.fixture
def run(tmp_path):
    """``run(id, method, checkpoint="c", day=1, **config)``: finished, on one checkpoint unless told otherwise."""
    store = FABRICATED["Store"](tmp_path / "store")

    def make(id, method, checkpoint="c", day=1, **config):
        shared = {"threads": 1, "evaluation.processes": 1}
        created = f"2026-01-0{day}T00:00:00+00:00"
        store.run(id, method=method, quantized=method != "none", created=created, checkpoint={"sha256": checkpoint},
                  config=shared | {key.replace("__", "."): value for key, value in config.items()})
        return load_run(store.root, id)

    return make


def beside(run):
    found = _beside_baselines(run)
    return tuple(one and one.id for one in (found.sixteen_bit, found.rtn))


def test_baselines_have_no_seed_and_need_not_have_had_as_many_processes(run):
    run("a", "none")
    run("b", "rtn", evaluation__processes=2)
    assert beside(run("q", "qig", seed=3, evaluation__processes=4)) == ("a", "b")


def test_other_checkpoints_threads_settings_and_questions_are_no_baselines(run):
    run("a", "none", checkpoint="before it was trained again")
    run("b", "none", threads=2)
    run("c", "rtn", quant__name="w4a8")
    run("d", "rtn", evaluation__limit=5)
    run("e", "awq")
    assert beside(run("q", "qig")) == (None, None)


def test_a_text_that_lies_elsewhere_has_the_baselines_of_its_content(run):
    run("a", "none", evaluation__text={"corpus": "mine", "window": 8, "path": "/a.txt"})
    assert beside(run("q", "qig", evaluation__text={"corpus": "mine", "window": 8, "path": "/b.txt"})) == ("a", None)


def test_the_newest_of_several_counts(run):
    run("z", "none", day=1)
    run("a", "none", day=3)
    run("m", "none", day=2)
    assert beside(run("q", "qig")) == ("a", None)


def test_a_base_model_is_one_of_the_hub(tmp_path):
    for path in ("owner/name", "owner/name@v1.0"):
        assert "base_model: owner/name\n" in _front_matter(path, "text-generation")
    for path in ("embedded:tiny_internvl", "packaged:smollm2_135m", str(tmp_path)):
        assert "base_model" not in _front_matter(path, "text-generation")
