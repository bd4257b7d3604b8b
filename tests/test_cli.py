"""The command line as a user meets it: a process of its own, its exit status, and what it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import forked
import qig
from qig.__main__ import meant_by
from qig.config import conf_dir
from qig.errors import ConfigError
from qig.runner import Prepared

SOURCE = Path(qig.__file__).parents[1]


def run(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """``python -m qig`` in another folder than the clone, with its outputs below ``cwd``."""
    env = {**os.environ, "PYTHONPATH": str(SOURCE), **environment}
    env.pop("HYDRA_FULL_ERROR", None)
    command = [sys.executable, "-m", "qig", *words]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def records(store: Path) -> list[Path]:
    return [folder for folder in store.glob("*/*") if folder.parent.name != "locks"]


def environment_of(run: Path) -> dict:
    return json.loads((run / "record.json").read_text())["environment"]


def test_help_shows_the_groups_and_their_choices(tmp_path):
    found = run("--help", cwd=tmp_path)
    assert found.returncode == 0
    for group in ("model", "quant", "method", "sensitivity", "equalization", "rounding", "calibration", "tracking"):
        choices = ", ".join(sorted(file.stem for file in (conf_dir() / group).glob("*.yaml")))
        assert f"\n{group}: {choices}\n" in found.stdout
    assert "schema" not in found.stdout
    assert list(tmp_path.iterdir()) == []


def test_configuration_can_be_shown_without_running(tmp_path):
    found = run("method=qig", "quant=w4a8", "--cfg", "job", cwd=tmp_path)
    assert found.returncode == 0 and "bits: 4" in found.stdout and "kind: qig" in found.stdout
    assert not records(tmp_path / "outputs/store")


def test_files_of_the_users_own_are_choices_like_others(tmp_path):
    (tmp_path / "own" / "method").mkdir(parents=True)
    (tmp_path / "own" / "method" / "mine.yaml").write_text("# @package _global_\ndefaults: [qig]\nseed: 5\n")
    told = run("--help", "--config-dir", "own", cwd=tmp_path).stdout
    assert re.search("^method: .*, mine, ", told, re.MULTILINE)
    words = ("method=mine", "quant=fp16", "plan=true", "tracking=none", "--config-dir", "own")
    found = run(*words, f"store={tmp_path / 'store'}", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "tiny_qwen2_vl fp16 mine, foreseen:" in found.stdout


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["model.path=DIR", "method=none"], ["model.path=DIR", "method=none", "model=hf"]),
        (["model=tiny_internvl", "model.path=DIR"], ["model=tiny_internvl", "model.path=DIR"]),
        (["+experiment=first_run", "model.path=DIR"], ["+experiment=first_run", "model.path=DIR"]),
        (["-m", "method=rtn,qig"], ["-m", "method=rtn,qig"]),
        (["store=~/a=~/b"], [f"store={Path.home()}/a=~/b"]),
    ],
)
def test_a_path_alone_is_a_checkpoint_of_the_users_own_and_home_is_home(given, meant):
    assert meant_by(given) == meant


@pytest.mark.parametrize("flags", [["-m", "--cfg", "job"], ["--multirun", "-c", "job"]])
def test_a_sweep_is_not_shown_as_one_job(flags):
    with pytest.raises(ConfigError, match=f"--cfg shows one job: leave {flags[0]} out"):
        meant_by(["method=rtn", *flags])


BAD = [
    ("method=qgi", "qgi"),
    ("quant.wieghts=1", "wieghts"),
    ("+quant.wieghts=1", "unknown configuration key 'quant.wieghts' (did you mean 'quant.weights'?)"),
    ("sensitivity=null", "of a group a name is chosen, such as tracking=none, method=rtn; got NoneType"),
    ("equalization.points=many", "many"),
    ("evaluation.tasks=qig_digitgrid", "evaluation.tasks is a list: give it as evaluation.tasks=[qig_digitgrid]"),
    ("calibration.samples=0", "calibration.samples=0: expected 1 or more"),
    ("quant.weights.group_size=100", "group_size=100 does not divide"),
    ("rounding=none", "rounding=none keeps weights in 16 bits"),
    ("model=hf", "model.path has no default"),
    ("calibration=mixture", "calibration.parts.captions.path has no default"),
    ("model.path=", "model.path is empty"),
    ("hydra.run.dir=/dev/null/job", "Not a directory: '/dev/null/job'"),
    ("evaluation.tasks=[MMMU_val]", "unknown task 'MMMU_val' (did you mean 'mmmu_val'?)"),
    ("model.path=/no/such/checkpoint", "'/no/such/checkpoint' does not exist"),
    ("model.path=owner/name", "'owner/name' is no local directory"),
    ("store=/dev/null/store", "cannot be created"),
    ("store=", "store is empty"),
    ("device=toaster", "unknown device 'toaster'; choose from: auto, cpu, cuda"),
]


@pytest.mark.parametrize(("override", "meant"), BAD, ids=[override for override, _ in BAD])
def test_mistakes_are_told_once_and_leave_nothing(tmp_path, override, meant):
    store = tmp_path / "store"
    done = forked.run(forked.command(f"store={store}", override, "tracking=none"), tmp_path)
    told = done.stdout + done.stderr
    assert done.returncode != 0
    assert told.count("error:") == 1 and meant in told[told.index("error:") :]
    assert "Traceback" not in told and "Error executing job" not in told
    assert not [entry for entry in tmp_path.rglob("*") if entry != store]  # which may have been made, and be empty


def test_files_of_the_users_own_are_refused_as_early(tmp_path):
    file = tmp_path / "own" / "method" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\ndefaults: [qig]\nquant: {weights: {bits: 99}}\n")
    for words in (["--config-dir", "own", "method=mine"], ["-cd", "none"], ["--run", "quant.weights.bits=99"]):
        done = forked.run(forked.command(*words, "tracking=none"), tmp_path)
        assert done.returncode != 0
        assert re.search("^error: (quant.weights.bits=99|--config-dir none): ", done.stderr), done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["own"]
    (tmp_path / "more" / "method").mkdir(parents=True)
    file.rename(tmp_path / "more" / "method" / "theirs.yaml")
    both = ["--config-dir", "own", f"hydra.searchpath=[file://{tmp_path / 'more'}]", "method=theirs"]
    done = forked.run(forked.command(*both, "tracking=none"), tmp_path)
    assert "error: quant.weights.bits=99: " in done.stderr, done.stderr


def test_run_then_the_same_run_then_a_sweep_with_a_mistake(tmp_path, compose):
    """One store for all three, so that the model is evaluated once."""
    (tmp_path / "elsewhere").mkdir()
    common = ["method=rtn", "tracking=none", "evaluation.limit=20", "threads=1", "device=cpu"]
    common.append(f"store={tmp_path / 'store'}")

    first = forked.run(forked.command(*common), tmp_path)
    assert first.returncode == 0, first.stderr
    assert "1 job: 1 done" in first.stdout + first.stderr
    made = {folder.parent.name for folder in records(tmp_path / "store")}
    assert made == {"runs", "quantized", "evaluation"}
    before = sorted(records(tmp_path / "store"))
    assert len([folder for folder in before if folder.parent.name == "runs"]) == 2  # RTN and 16 bit

    second = run(*common, cwd=tmp_path / "elsewhere", PYTHONPROFILEIMPORTTIME="1")
    assert second.returncode == 0, second.stderr
    assert "already in the store" in second.stdout + second.stderr
    imported = {line.rpartition("|")[2].strip() for line in second.stderr.splitlines()}  # one a line
    assert "pandas" in imported and not {"torch", "transformers", "lmms_eval", "matplotlib"} & imported
    assert sorted(records(tmp_path / "store")) == before

    ids = [folder for folder in before if folder.parent.name == "runs"]
    computed = [environment_of(folder) for folder in ids]
    for folder in ids:
        shutil.rmtree(folder)
    Prepared(compose(*common)).run()  # finds its stages, and writes the runs' records anew
    assert [environment_of(folder) for folder in ids] == computed
    assert computed[0]["cpu"]["threads"] == 1

    sweep = forked.run(forked.command("-m", *common, "quant.weights.group_size=128,100"), tmp_path)
    told = sweep.stdout + sweep.stderr
    assert sweep.returncode != 0
    assert "error: 1 of 2 jobs cannot run; none was launched" in told and "job 1: " in told and "job 0: " not in told
    assert told.count("group_size=100 does not divide") == 1 and "Traceback" not in told
    assert not list((tmp_path / "outputs" / "sweeps").glob("*/*/*/"))
    assert sorted(records(tmp_path / "store")) == before

    sweep = forked.run(forked.command("-m", *common, "quant.weights.group_size=128", "seed=0,1"), tmp_path)
    assert sweep.returncode == 0 and "2 jobs: 0 done, 2 cached, 0 failed" in sweep.stdout + sweep.stderr
    assert sorted(records(tmp_path / "store")) == before
