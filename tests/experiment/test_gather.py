"""An experiment's runs: planned as the runner would name them, found in a store, missing ones named."""

import runpy
import shutil
from pathlib import Path

import pytest

from qig.config.own import words
from qig.config.rules import check_text_only
from qig.errors import ConfigError, StoreError
from qig.experiment.estimate import estimate
from qig.experiment.gather import gather, plan
from qig.experiment.paper import main as paper
from qig.models.tiny import checkpoint_dir
from qig.report.__main__ import main as report
from qig.report.tables.places import places
from qig.runner import Prepared
from qig.store import write_manifest

FABRICATED = runpy.run_path(str(Path(__file__).parents[1] / "report" / "fabricated.py"))
SMALL = ("model=tiny_internvl", "evaluation.limit=4")


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("QIG_STORE", str(tmp_path / "store"))
    return FABRICATED["Store"](tmp_path / "store")


def finish(store, one, **changes):
    """A fabricated run in the place of a planned one, as complete as the store wants it."""
    run, stages = one.keys.run, one.keys.stages
    store.run(run, method=one.config.method, quantized=one.keys.quantized is not None, **changes)
    record = store.root / "runs" / run / "record.json"
    record.write_text(record.read_text().replace(f'"e{run}"', f'"{stages["evaluation"]}"'))
    for kind, key in stages.items():
        folder = store.root / kind / key
        if not folder.is_dir():
            (store.root / kind / f"{kind[0]}{run}").rename(folder)
            write_manifest(folder)
    write_manifest(record.parent)


@pytest.mark.parametrize("own", [False, True], ids=["embedded", "hf"])
def test_a_planned_run_is_the_one_that_the_runner_makes(store, compose, tmp_path, own):
    """Also of a checkpoint of one's own, which decides the type of its numbers."""
    words = SMALL
    if own:
        shutil.copytree(checkpoint_dir("tiny_internvl"), tmp_path / "own")
        words = ("model=hf", f"model.path={tmp_path / 'own'}", "model.name=own", "evaluation.limit=4")
    for one in plan("table5_gptq", words):
        assert one.config.model.dtype != "auto"
        words = [word for word in one.job.overrides if not word.startswith("+experiment")]
        config = compose(*words)
        config.method = one.config.method
        prepared = Prepared(config)
        assert prepared._stages.keys(prepared.config) == one.keys


def test_runs_are_found_with_arm_and_point(store):
    planned = plan("table5_gptq", SMALL)
    for one in planned:
        finish(store, one)
    found = gather("table5_gptq", SMALL)
    assert [row.arm for row in found.rows] == ["16 bit", "RTN", "GPTQ", "GPTQ + QIG", "GPTQ + QIG, permuted"]
    assert [row.run.id for row in found.rows] == [one.keys.run for one in planned]
    assert all(row.point == {"model": "tiny_internvl", "quant": "w3a16"} for row in found.rows)


def test_of_the_arms_those_asked_for_are_planned_and_tabulated_with_what_they_are_compared_with(store):
    words = (*SMALL, "hydra.sweeper.only=[GPTQ + QIG]")
    chosen = ["16 bit", "GPTQ", "GPTQ + QIG", "GPTQ + QIG, permuted"]
    planned = plan("table5_gptq", words)
    for one in planned:
        finish(store, one)
    found = gather("table5_gptq", words)
    assert [one.job.arm for one in planned] == [row.arm for row in found.rows] == list(found.arms) == chosen
    with pytest.raises(StoreError, match=r"1 of 5 runs of table5_gptq are not in the store"):
        gather("table5_gptq", SMALL)


def test_two_runs_in_a_cell_are_refused_before_any_is_missed(store):
    words = (*SMALL, "calibration.samples=2,4")
    with pytest.raises(ConfigError, match=r"'\+\+hydra\.sweeper\.table\.over=\[calibration\.samples\]' averages"):
        gather("table5_gptq", words)
    for cure in ("++hydra.sweeper.table.over=[calibration.samples]",
                 "hydra.sweeper.table.rows=[model,arm,calibration.samples]"):
        with pytest.raises(StoreError, match="of table5_gptq are not in the store"):
            gather("table5_gptq", (*words, cure))


def test_a_swept_seed_is_averaged_over_unless_the_table_places_it(store):
    words = (*SMALL, "seed=0,1")
    for index, one in enumerate(plan("table5_gptq", words)):
        if not one.finished:
            finish(store, one, scores=[[1, 0, index % 2, 1]])
    found = gather("table5_gptq", words)
    assert found.table.over == ["seed"]
    seeds = {place.arm: len({run.id for run in place.runs}) for place in places(found)}
    assert seeds == {"16 bit": 1, "RTN": 1, "GPTQ": 2, "GPTQ + QIG": 2, "GPTQ + QIG, permuted": 2}
    placed = gather("table5_gptq", (*words, "hydra.sweeper.table.columns=[quant,seed]"))
    assert placed.table.over == []
    assert {place.keys["seed"] for place in places(placed)} == {"0", "1"}
    assert gather("table5_gptq", (*SMALL, "seed=0")).table.over == []


def test_missing_runs_are_named_with_the_command_that_makes_them(store):
    first, *rest = plan("table5_gptq", SMALL)
    for one in rest:
        finish(store, one)
    with pytest.raises(StoreError) as error:
        gather("table5_gptq", SMALL)
    text = str(error.value)
    assert "1 of 5 runs of table5_gptq" in text and first.keys.run in text and "16 bit" in text
    assert "qig -m +experiment=table5_gptq model=tiny_internvl evaluation.limit=4" in text
    assert rest[0].keys.run not in text


def test_a_damaged_run_is_missing(store):
    planned = plan("table5_gptq", SMALL)
    for one in planned:
        finish(store, one)
    (store.root / "runs" / planned[0].keys.run / "record.json").write_text("{}")
    with pytest.raises(StoreError, match="1 of 5 runs"):
        gather("table5_gptq", SMALL)


@pytest.mark.parametrize("kind", ["evaluation", "quantized"])
def test_a_run_whose_stage_is_gone_is_missing(store, kind):
    planned = plan("table5_gptq", SMALL)
    for one in planned:
        finish(store, one)
    gather("table5_gptq", SMALL)
    (folder,) = {store.root / kind / one.keys.stages[kind] for one in planned[1:2]}
    shutil.rmtree(folder)
    with pytest.raises(StoreError, match="1 of 5 runs"):
        gather("table5_gptq", SMALL)


def test_unknown_experiments_and_keys_are_refused(store):
    with pytest.raises(ConfigError, match="did you mean 'table5_gptq'"):
        plan("table5_gtpq")
    with pytest.raises(ConfigError, match=r"calibration\.sample"):
        plan("table5_gptq", ["calibration.sample=4"])


@pytest.mark.parametrize("name", ["table1_estimators", "nodes", "group_size"])
def test_experiments_of_arms_and_presets_compose(store, name):
    planned = plan(name, ["model=tiny_qwen2_vl", "calibration.samples=2"])
    assert len({one.keys.run for one in planned}) == len(planned)


def test_data_free_arms_are_one_run_over_all_seeds(store):
    planned = plan("seeds", ["quant=w3a16"])
    runs = {arm: {one.keys.run for one in planned if one.job.arm == arm} for arm in ("16 bit", "RTN", "CWE", "QIG")}
    assert {arm: len(ids) for arm, ids in runs.items()} == {"16 bit": 1, "RTN": 1, "CWE": 5, "QIG": 5}


def test_the_estimate_counts_each_run_once_and_nothing_that_is_there(store):
    planned = plan("table5_gptq", SMALL)
    seen = set()
    whole = estimate(planned, seen)
    assert (whole.runs, whole.missing) == (5, 5) and whole.seconds > 0
    assert estimate(planned, seen).runs == 0
    for one in planned:
        finish(store, one)
    assert (estimate(planned).missing, estimate(planned).seconds) == (0, 0)


def test_a_key_that_no_job_has_is_no_row_of_a_table(store):
    with pytest.raises(ConfigError, match=r"no job has 'modle', which .*\(did you mean 'model'\?\); expected 'arm'"):
        gather("table5_gptq", (*SMALL, "hydra.sweeper.table.rows=[modle,arm]"))
    with pytest.raises(ConfigError, match=r"no job has 'seeds'"):
        gather("table5_gptq", (*SMALL, "++hydra.sweeper.table.over=[seeds]"))


def test_the_first_run_has_no_table(store):
    with pytest.raises(ConfigError, match=r"first_run has no hydra\.sweeper\.table"):
        gather("first_run")


@pytest.mark.parametrize(
    ("name", "words", "jobs", "runs"),
    [
        ("text_methods", ["quant=w2a16_g64,w4a8"], 12, 11), ("text_samples", [], 18, 18), ("text_sites", [], 7, 7),
        ("real_weights", ["method=awq_statistic"], 10, 10), ("real_weights", ["method=awq_clip"], 10, 10),
        ("real_weights_gptq", ["method=gptaq"], 10, 10), ("fresh_seeds", [], 4, 4),
        ("fresh_seeds_statistic", ["quant=w2a16_g64"], 4, 4),
    ],
)
def test_experiments_on_pretrained_weights_fit_a_language_model(
    store, family_checkpoint, monkeypatch, tmp_path, name, words, jobs, runs
):
    """Planned on a small stand-in where the fetched checkpoint would be; 16 bit is one run in all settings."""
    monkeypatch.setenv("QIG_CACHE", str(tmp_path))
    shutil.copytree(family_checkpoint("llama"), tmp_path / "packaged" / "smollm2_135m")
    planned = plan(name, ("seed=0", *words))
    assert (len(planned), len({one.keys.run for one in planned})) == (jobs, runs)
    for one in planned:
        check_text_only(one.config, "it is a language model")
        assert one.config.model.name == "smollm2_135m" and one.config.evaluation.text.corpus == "python_docs"
        assert one.config.quant.weights is None or one.config.quant.weights.group_size in (64, None)


def test_mbqs_table_is_over_its_six_benchmarks(store):
    """16 bit is one run in both settings."""
    planned = plan("mbq_table2", ("model=tiny_internvl",))
    assert (len(planned), len({one.keys.run for one in planned})) == (2 * 9, 2 * 8 + 1)
    six = {"mmmu_val", "seedbench", "ocrbench", "vizwiz_vqa_val", "scienceqa_img", "textvqa_val"}
    for one in planned:
        assert set(one.config.evaluation.tasks) == six and one.config.evaluation.limit is None
        assert one.config.evaluation.protocol == "wrapper"


@pytest.mark.parametrize(
    ("name", "words", "jobs", "runs"),
    [
        ("image_methods", "quant=w3a16_g64,w4a8", 18, 17),
        ("image_samples", "quant=w2a16_g64", 6, 6),
        ("real_weights_images", "method=awq_statistic", 10, 10),
        ("real_weights_images_gptq", "method=gptq", 10, 10),
        ("fresh_seeds_images", "quant=w3a16_g64", 3, 3),
        ("fresh_seeds_search", "quant=w3a16_g64", 3, 3),
    ],
)
def test_experiments_on_pretrained_weights_and_images(store, monkeypatch, tmp_path, name, words, jobs, runs):
    """Planned on an embedded model in its place."""
    monkeypatch.setenv("QIG_CACHE", str(tmp_path))
    shutil.copytree(checkpoint_dir("tiny_internvl"), tmp_path / "packaged" / "smol_internvl")
    planned = plan(name, ("seed=0", words))
    assert (len(planned), len({one.keys.run for one in planned})) == (jobs, runs)
    assert {one.config.model.name for one in planned} == {"smol_internvl"}
    assert {one.config.quant.weights.group_size for one in planned if one.config.quant.weights} <= {64, None}


MINE = """\
# @package _global_
defaults: [{override /quant: mine}]
hydra:
  sweeper:
    arms: {16 bit: quant=fp16, RTN: method=rtn}
    table: {title: Mine, caption: Two arms., rows: [arm], metrics: [accuracy], controls: [RTN]}
"""


@pytest.fixture
def own(tmp_path):
    """The user's folder of configuration files, with a name to be quoted."""
    folder = tmp_path / "it's, [mine]"
    for group in ("experiment", "quant"):
        (folder / group).mkdir(parents=True)
    (folder / "experiment" / "mine.yaml").write_text(MINE)
    (folder / "quant" / "mine.yaml").write_text("defaults: [w4a16, _self_]\nweights: {bits: 5}\n")
    return folder


def test_experiments_in_the_users_own_folder_are_reported_with_it(store, own, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    planned = plan("mine", words(own))
    assert [one.config.quant.weights and one.config.quant.weights.bits for one in planned] == [None, 5]
    for one in planned:
        finish(store, one)
    assert report(["mine"]) == 1
    assert "unknown experiment 'mine'" in capsys.readouterr().err
    assert report(["mine", "--config-dir", str(own)]) == 0
    assert (tmp_path / "results/mine/mine.csv").is_file()
    assert paper(["mine", "--plan", "--config-dir", str(own)]) == 0
    assert "0 missing" in capsys.readouterr().out
    assert paper(["mine", "--plan", "--config-dir", "nowhere"]) == 1
    assert "--config-dir nowhere: no such folder" in capsys.readouterr().err
