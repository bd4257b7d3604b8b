"""The sweeper as Hydra makes it."""

from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

import forked
from qig.config.validation import resolve
from qig.errors import ConfigError
from qig.experiment import sweeper as module
from qig.experiment.jobs import Job
from qig.experiment.launching import foresee
from qig.experiment.sweeper import ArmSweeper

TABLE = {"title": "T", "caption": "C.", "rows": ["arm"], "metrics": ["nll"], "controls": ["CWE"]}


def sweeper(**parts):
    given = {"max_batch_size": None, "params": {"seed": "0,1"}, "arms": {"CWE": "method=awq", "QIG": "method=qig"},
             "only": None, "table": None, "figures": None}
    return ArmSweeper(**{key: OmegaConf.create(value) if isinstance(value, dict) else value
                         for key, value in (given | parts).items()})


def test_batches_are_the_jobs_of_all_arms():
    made = sweeper(max_batch_size=3)
    made._arguments = ["+experiment=x"]
    batches = made.split_arguments([], 3)
    assert [len(batch) for batch in batches] == [3, 1]
    assert batches[0][0] == ["seed=0", "+experiment=x", "method=awq"]


def test_a_table_that_cannot_be_made_is_refused_before_anything_runs():
    sweeper(table=TABLE)
    with pytest.raises(ConfigError, match="CWX"):
        sweeper(table=TABLE | {"controls": ["CWX"]})


def test_of_the_arms_those_named_are_run_with_what_they_are_compared_with():
    arms = {name: f"method={name}" for name in ("none", "rtn", "awq", "mbq", "qig")}
    table = TABLE | {"controls": ["awq"], "references": ["none"], "shown": ["rtn", "qig"]}
    assert list(sweeper(arms=arms, table=table, only=["qig"]).arms) == ["none", "awq", "qig"]
    assert list(sweeper(arms=arms, only=["qig", "rtn"]).arms) == ["rtn", "qig"]
    assert list(sweeper(arms=arms, table=table, only=[]).arms) == list(arms)
    with pytest.raises(ConfigError, match=r"unknown arm in hydra\.sweeper\.only 'qik'.*did you mean 'qig'"):
        sweeper(arms=arms, only=["qik"])


def test_a_figure_that_does_not_exist_is_refused_before_anything_runs():
    sweeper(figures=["accuracy_bits"])
    with pytest.raises(ConfigError, match=r"unknown figure 'accuracy_bit'.*did you mean 'accuracy_bits'"):
        sweeper(figures=["accuracy_bit"])


@pytest.mark.parametrize(
    ("threads", "words", "found"),
    [
        (None, ["a=1"], ["a=1", "threads=3"]),
        (None, ["a=1", "threads=2"], ["a=1", "threads=2"]),
        (4, ["a=1"], ["a=1"]),
    ],
)
def test_jobs_compute_with_the_threads_of_the_machine_that_starts_them(monkeypatch, threads, words, found):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    made = sweeper()
    made.config = OmegaConf.create({"threads": threads})
    assert made._with_threads(words) == found


def test_mistakes_come_before_any_job_and_what_is_stored_is_tracked_behind_all(monkeypatch, tmp_path):
    made, done = sweeper(), []
    made.config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    made.hydra_context, made.launcher = SimpleNamespace(config_loader=None), None
    monkeypatch.setattr(made, "split_arguments", lambda *_: [[["seed=0"], ["seed=1"]], [["seed=2"]]])
    monkeypatch.setattr(made, "_placed", lambda number, words, _: (number, words))
    monkeypatch.setattr(made, "_check_cells", lambda resolved: done.append(("cells", resolved)))
    refused = lambda jobs: done.append(("check", [job for job, _ in jobs])) or ["a", "b", "c"]  # noqa: E731
    monkeypatch.setattr(module, "refuse_mistakes", refused)
    monkeypatch.setattr(module, "refuse_absent_data", lambda jobs: done.append(("data", [job for job, _ in jobs])))
    monkeypatch.setattr(module, "note_if_in_store", lambda job, *_: job == 1)
    monkeypatch.setattr(module, "launch_all", lambda _, jobs: done.append(("launch", jobs)))
    monkeypatch.setattr(module, "track_stored", lambda job, words: done.append(("track", job, words)))
    monkeypatch.setattr(module, "check_ended", lambda jobs: done.append(("end", jobs)))
    made.sweep([])
    first = [("check", [0, 1, 2]), ("cells", ["a", "b", "c"])]
    launched = [("data", [0]), ("launch", [0]), ("data", [2]), ("launch", [2])]
    assert done == [*first, *launched, ("track", 1, ["seed=1"]), ("end", [0, 1, 2])]


def test_two_runs_in_a_cell_are_refused_before_anything_runs(tmp_path):
    words = ["+experiment=table5_gptq", "model=tiny_internvl", "tracking=none", "calibration.samples=2,4"]
    done = forked.run(forked.command("-m", *words), tmp_path, {"QIG_STORE": str(tmp_path / "store")})
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "fall into one cell ('tiny_internvl', 'GPTQ', 'w3a16')" in done.stderr
    assert not (tmp_path / "store").exists()


def test_jobs_are_one_run_where_they_differ_in_nothing_that_it_reads(compose):
    """Without a look at the checkpoint or the data, which need not be there."""
    words = ["model=hf", "model.path=/nowhere", "model.name=own"]
    one, other, third = (foresee(Job(None, (), ()), resolve(compose(*words, *own)))
                         for own in (["method=rtn"], ["method=rtn", "seed=1"], ["method=awq", "seed=1"]))
    assert one.id == other.id != third.id
