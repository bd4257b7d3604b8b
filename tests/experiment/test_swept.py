"""The table of an experiment from what its sweeps' jobs left, where neither checkpoint nor device is there."""

import csv
import json
import runpy
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from qig.errors import StoreError
from qig.experiment.swept import gather_from
from qig.report.__main__ import main
from qig.store import write_manifest

FABRICATED = runpy.run_path(str(Path(__file__).parents[1] / "report" / "fabricated.py"))
ARMS = {"16 bit": ["method=none", "quant=fp16"], "RTN": ["method=rtn"], "GPTQ": ["method=gptq"],
        "GPTQ + QIG": ["method=gptq_qig"],
        "GPTQ + QIG, permuted": ["method=gptq_qig", "sensitivity.control=permuted"]}
"""Of table5_gptq."""
SHARED = ["evaluation=paper", "evaluation.limit=null", "device=cuda:3"]


@pytest.fixture(autouse=True)
def neither_checkpoint_nor_device(monkeypatch, tmp_path):
    def refuse(*_):
        raise AssertionError("looked at")

    for name in ("qig.models.checkpoint.resolve", "qig.models.checkpoint.content_hash", "qig.stages.device_name"):
        monkeypatch.setattr(name, refuse)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def store(tmp_path):
    return FABRICATED["Store"](tmp_path / "store")


@pytest.fixture
def swept(store, tmp_path):
    """``swept(name, model, ...)``: the folder of a finished sweep.

    ``own``: Hydra's words of its command; ``added``: words that its jobs have besides; ``failed``: arms that failed.
    """
    def make(name, model, commit="0" * 40, own=(), added=(), failed=()):
        folder = tmp_path / name
        for number, (arm, words) in enumerate(ARMS.items()):
            job = folder / str(number)
            job.mkdir(parents=True)
            shared = [word.replace(":", "\\:") for word in SHARED]  # as Hydra hands them on
            task = [f"model={model}", *([] if arm == "16 bit" else ["quant=w3a16"]), *shared,
                    "+experiment=table5_gptq", *words, *added]
            state = {"status": "failed" if arm in failed else "completed", "overrides": task,
                     "error": "out of memory" if arm in failed else None}
            (job / "job.json").write_text(json.dumps(state))
            if arm in failed:
                continue
            run = store.run(f"{name}{number}", method=words[0].removeprefix("method="),
                            scores=[[1] * number + [0] * (4 - number)],
                            quantized=arm != "16 bit", environment={"git": {"commit": commit, "dirty": False}},
                            config={"model.name": model, "quant.name": "fp16" if arm == "16 bit" else "w3a16"})
            write_manifest(store.root / "runs" / run)
            left = {"run": run, "baselines": {}, "store": str(store.root), "cached": False}
            (job / "run.json").write_text(json.dumps(left))
        task = ["+experiment=table5_gptq", f"model={model}", *SHARED]
        OmegaConf.save({"hydra": {"overrides": {"task": task, "hydra": ["hydra.mode=MULTIRUN", *own]}}},
                       folder / "multirun.yaml")
        return folder

    return make


def runs_of(found):
    return {(row.point["model"], row.arm): row.run.id for row in found.rows}


def test_the_runs_of_one_sweep_are_tabulated(swept, tmp_path):
    """The scores of arm number N are N of 4."""
    swept("sweep", "internvl2_8b", added=["threads=8"])
    assert main(["table5_gptq", "--from", "sweep"]) == 0
    (folder,) = (tmp_path / "results").glob("table5*")
    assert folder.name == "table5_gptq_model=internvl2_8b_evaluation=paper_evaluation.limit=null_device=cuda-3"
    with (folder / "table5_gptq.csv").open(newline="") as stream:
        values = {row["arm"]: float(row["value"]) for row in csv.DictReader(stream) if row["metric"] == "accuracy"}
    assert values == {arm: number / 4 for number, arm in enumerate(ARMS)}
    sidecar = json.loads((folder / "table5_gptq.json").read_text())
    assert sidecar["command"].endswith("evaluation.limit=null device=cuda:3 --from sweep")
    assert "several commits" not in (folder / "table5_gptq.md").read_text()


def test_several_sweeps_are_one_and_their_commits_are_told(swept, tmp_path):
    folders = [swept("a", "internvl2_8b", commit="a" * 40), swept("b", "llava_onevision_7b", commit="b" * 40)]
    found = gather_from("table5_gptq", (), folders)
    assert "model=internvl2_8b,llava_onevision_7b" in found.overrides
    assert runs_of(found) == {(model, arm): f"{sweep}{number}" for sweep, model in
                              (("a", "internvl2_8b"), ("b", "llava_onevision_7b")) for number, arm in enumerate(ARMS)}
    assert main(["table5_gptq", "--from", "a", "b"]) == 0
    (page,) = (tmp_path / "results").glob("table5*/table5_gptq.md")
    assert "several commits, whose results need not be comparable: aaaaaaaaaa (5 runs), bbbbbbbbbb (5 runs)." in (
        page.read_text())


def test_a_word_given_replaces_the_sweeps_own(swept):
    folders = [swept("a", "internvl2_8b"), swept("b", "llava_onevision_7b")]
    found = gather_from("table5_gptq", ("model=llava_onevision_7b",), folders)
    assert set(runs_of(found).values()) == {f"b{number}" for number in range(5)}


def test_how_the_sweep_was_to_be_tabulated_is_read_too(swept):
    own = ["hydra.sweeper.table.title=Another", "hydra/launcher=submitit_slurm"]
    assert gather_from("table5_gptq", (), [swept("a", "internvl2_8b", own=own)]).table.title == "Another"


def test_the_later_sweep_counts_unless_it_left_no_run(swept):
    folders = [swept("a", "internvl2_8b"), swept("b", "internvl2_8b", failed=["GPTQ"])]
    found = gather_from("table5_gptq", (), folders)
    assert [row.run.id for row in found.rows] == ["b0", "b1", "a2", "b3", "b4"]


def test_jobs_of_other_words_do_not_count(swept):
    folder = swept("a", "internvl2_8b", added=["calibration.samples=8"])
    with pytest.raises(StoreError, match=r"5 of 5 jobs of table5_gptq left no run in .*a:\n  16 bit: .*: no such job"):
        gather_from("table5_gptq", (), [folder])


def test_what_is_missing_or_no_sweep_is_named(swept, store, tmp_path, capsys):
    folder = swept("a", "internvl2_8b", failed=["RTN"])
    with pytest.raises(StoreError, match=r"1 of 5 jobs of table5_gptq .*\n  RTN: .*/a/1: out of memory"):
        gather_from("table5_gptq", (), [folder])
    assert main(["table2_main", "--from", "a"]) == 1
    assert "a is a sweep of table5_gptq; expected +experiment=table2_main" in capsys.readouterr().err
    assert main(["table5_gptq", "--from", "store"]) == 1
    assert "store is no folder of a sweep: expected multirun.yaml in it" in capsys.readouterr().err
    (folder / "multirun.yaml").write_text("hydra: [")
    assert main(["table5_gptq", "--from", "a"]) == 1
    assert "a/multirun.yaml is not as a sweep leaves it" in capsys.readouterr().err
    for name in ("all", "published_consistency"):
        assert main([name, "--from", "a"]) == 1
        assert "--from is for one experiment" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_a_damaged_run_is_refused(swept, store):
    folder = swept("a", "internvl2_8b")
    record = store.root / "runs" / "a2" / "record.json"
    record.write_text(record.read_text().replace('"calibration": 1.5', '"calibration": 9.5'))
    with pytest.raises(StoreError, match=r"run a2 in .* is damaged"):
        gather_from("table5_gptq", (), [folder])
