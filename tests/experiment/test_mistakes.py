"""A sweep with a mistake in it is refused as a whole, and told each mistake once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
from hydra import compose

from qig import runner
from qig.config.composed import Composer, composing
from qig.errors import ConfigError, DataError
from qig.experiment.launching import SweepJob
from qig.experiment.mistakes import refuse_absent_data, refuse_mistakes
from qig.models import checkpoint


@pytest.fixture(scope="module")
def composer():
    """One for all tests: it is Hydra's reading of files that takes time."""
    with composing():
        yield Composer(lambda words: compose("config", words, return_hydra_config=True))


@pytest.fixture
def sweep(composer, tmp_path):
    """``sweep(words, ...)``: its jobs, as the sweeper places them."""
    return lambda *jobs: [
        (SweepJob(tuple(words), tmp_path, str(number)), composer(words)) for number, words in enumerate(jobs)
    ]


def test_a_sweep_without_mistakes_is_not_refused(sweep):
    jobs = sweep(["method=rtn", "device=cuda:7"], ["quant=fp16", "store=/dev/null/store"], ["seed=3"])
    first, second, third = refuse_mistakes(jobs)
    assert (first.device, second.method, third.seed, third.model.dtype) == ("cuda:7", "none", 3, "float32")


MISTAKES = [
    ("evaluation.tasks=[qig_digitgird]", "unknown task 'qig_digitgird'"),
    ("model.path=/no/such/checkpoint", "'/no/such/checkpoint' does not exist"),
    ("quant.weights.group_size=100", "group_size=100 does not divide"),
    ("sensitivity.nodes=0", "sensitivity.nodes=0: expected 1 or more"),
    ("model=hf", "model.path has no default"),
]


@pytest.mark.parametrize(("word", "said"), MISTAKES)
def test_a_mistake_is_told_once_with_its_jobs(sweep, word, said):
    jobs = sweep(["method=qig"], ["method=qig", word, "hydra.job.chdir=false"], ["method=qig", word, "seed=1"])
    with pytest.raises(ConfigError) as refused:
        refuse_mistakes(jobs)
    first, *others = str(refused.value).splitlines()
    assert first == "2 of 3 jobs cannot run; none was launched" and str(refused.value).count(said) == 1
    assert [line.split(":")[0] for line in others if line.startswith("  ")] == ["  job 1", "  job 2"]
    assert "seed=1" in others[-1] and "chdir" not in str(refused.value)


def test_calibration_files_that_are_not_there(sweep, tmp_path):
    (tmp_path / "images").mkdir()
    absent = ["calibration=sharegpt4v_coco", f"calibration.path={tmp_path}/none.json",
              f"calibration.image_folder={tmp_path}/images"]  # fmt: skip
    refuse_mistakes(sweep(["method=rtn", *absent]))  # which reads no calibration data
    with pytest.raises(ConfigError, match=r"1 of 2 jobs[\s\S]*none\.json[\s\S]*job 1: method=awq"):
        refuse_mistakes(sweep(["method=rtn", *absent], ["method=awq", *absent]))


def test_different_mistakes_are_told_all_and_many_jobs_are_counted(sweep):
    jobs = sweep(*(["rounding=none", f"seed={seed}"] for seed in range(8)), ["quant.weights.group_size=100"])
    with pytest.raises(ConfigError) as refused:
        refuse_mistakes(jobs)
    told = str(refused.value)
    assert told.startswith("9 of 9 jobs") and told.count("rounding=none keeps") == 1 and "  and 3 more jobs\n" in told
    assert "does not divide" in told and "  job 8: " in told


def test_what_takes_time_is_asked_once_of_what_differs(sweep, monkeypatch):
    """60 jobs: 2 checkpoints, 2 grids each (16 bit has no groups), one benchmark, one calibration set but for seeds."""
    asked: Counter = Counter()

    def counted(owner, name):
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *given: asked.update([name]) or real(*given))

    counted(checkpoint, "resolve"), counted(checkpoint, "check_group_size")
    counted(runner, "check_tasks"), counted(runner, "check_available")
    grid = product(("tiny_internvl", "tiny_qwen2_vl"), ("w3a16", "w3a16_g64", "fp16"), ("awq", "qig"), range(5))
    refuse_mistakes(sweep(*([f"model={m}", f"quant={q}", f"method={method}", f"seed={s}"] for m, q, method, s in grid)))
    assert asked == {"resolve": 2, "check_group_size": 4, "check_tasks": 1, "check_available": 1}


def test_what_was_refused_once_is_refused_again(sweep, monkeypatch):
    asked = []
    real = checkpoint.resolve
    monkeypatch.setattr(checkpoint, "resolve", lambda path: asked.append(path) or real(path))
    with pytest.raises(ConfigError, match="3 of 3 jobs"):
        refuse_mistakes(sweep(*(["model.path=/no/such/checkpoint", f"seed={seed}"] for seed in range(3))))
    assert asked == ["/no/such/checkpoint"]


def test_a_benchmark_that_is_not_here_is_told_before_any_job_is_launched(sweep, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("qig.evaluation.datasets._cached", lambda _: False)
    own, absent = sweep(["method=rtn"], ["method=rtn", "evaluation.tasks=[chartqa]"])
    planned = replace(absent[0], plans=True), absent[1]
    refuse_absent_data([own, planned])
    with pytest.raises(DataError, match=r"task 'chartqa' needs the dataset .*HF_HUB_OFFLINE=1 forbids fetching it"):
        refuse_absent_data([own, absent])
