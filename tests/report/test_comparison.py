import math

import pytest

from qig.errors import EvaluationError
from qig.report.comparison import Compared, by_type, comparison
from qig.report.records import load_run
from qig.report.render import terminal
from qig.report.tables.paired import aligned

# Two questions an image: images score (2/2, 1/2), so resampled means are 1, 3/4 and 1/2 with odds 1:2:1.
RIGHT = (1, 1, 0, 1)
WORSE = (1, 0, 0, 0)


def load(store, *ids):
    return [load_run(store.root, id) for id in ids]


def test_accuracy_and_paired_differences_by_hand(store):
    store.run("a", scores=[RIGHT], nll=[0.1, 0.2, 0.3, 0.4])
    store.run("b", method="rtn", scores=[WORSE], nll=[0.2, 0.4, 0.4, 0.6])
    run, rtn = load(store, "a", "b")
    row = comparison([Compared(run, rtn=rtn)]).iloc[0]
    assert (row["accuracy"], row["accuracy_low"], row["accuracy_high"]) == (0.75, 0.5, 1.0)
    # Each image gains one of two answers: every resample gives the same difference.
    assert (row["vs_rtn"], row["vs_rtn_low"], row["vs_rtn_high"]) == (0.5, 0.5, 0.5)
    assert row["vs_rtn_p"] == pytest.approx(0.5)  # two discordant pairs, both ours: 2 * (1/2)^2
    assert row["nll"] == pytest.approx(0.25)
    assert row["nll_vs_rtn"] == pytest.approx(-0.15)  # images: -0.15 and -0.15
    assert row["nll_vs_rtn_low"] == pytest.approx(-0.15)
    assert math.isnan(row["vs_16bit"]) and math.isnan(row["vs_16bit_p"])
    assert (row["run"], row["rtn_run"], row["sixteen_bit_run"]) == ("a", "b", None)


def test_costs_are_seconds_and_bytes(store):
    store.run("a")
    store.run("f", method="none", quantized=False)
    frame = comparison([Compared(run) for run in load(store, "a", "f")])
    assert frame["calibration_seconds"].iloc[0] == 7.5
    assert math.isnan(frame["calibration_seconds"].iloc[1])
    assert frame["model_bytes"].tolist() == [2**20, 3 * 2**20]
    assert frame["peak_host_bytes"].iloc[0] == 512 * 2**20
    assert math.isnan(frame["peak_device_bytes"].iloc[0])


def test_a_run_that_is_its_own_baseline_has_no_difference(store):
    store.run("b", method="rtn")
    (rtn,) = load(store, "b")
    row = comparison([Compared(rtn, rtn=rtn)]).iloc[0]
    assert math.isnan(row["vs_rtn"]) and math.isnan(row["vs_rtn_p"])


def test_several_tasks_get_a_column_each_and_their_mean(store):
    store.run("a", scores=[RIGHT, (0, 0, 1, 1)])
    row = comparison([Compared(run) for run in load(store, "a")]).iloc[0]
    assert (row["accuracy.task0"], row["accuracy.task1"]) == (0.75, 0.5)
    assert (row["accuracy.task1_low"], row["accuracy.task1_high"]) == (0.0, 1.0)
    assert row["accuracy"] == 0.625
    # Two images a task, drawn separately: the least (1/2 and 0) has odds of 1 in 16, as the most (1 and 1).
    assert (row["accuracy_low"], row["accuracy_high"]) == (0.25, 1.0)


def test_several_tasks_have_no_mcnemar(store):
    """Twelve answers lost in one task and two won in the other: p of all answers is not that of the tasks' mean."""
    store.run("a", scores=[(1, 1), (0,) * 12])
    store.run("b", method="rtn", scores=[(0, 0), (1,) * 6 + (0,) * 6])
    run, rtn = load(store, "a", "b")
    frame = comparison([Compared(run, rtn=rtn)])
    assert frame.iloc[0]["vs_rtn"] == 0.25 and math.isnan(frame.iloc[0]["vs_rtn_p"])
    assert "McNemar" not in terminal(frame) and "p (RTN)" not in terminal(frame)


def test_the_mean_over_tasks_weighs_tasks_not_samples(store, task_samples):
    store.run("a", samples=task_samples("big", [1] * 6) + task_samples("small", [0] * 2))
    assert comparison([Compared(run) for run in load(store, "a")])["accuracy"].iloc[0] == 0.5


def test_running_text_beside_a_task_stands_by_itself(store, task_samples):
    """Its likelihoods are nats a token, the task's nats an answer."""
    text = {"evaluation.text": {"corpus": "python_docs", "window": 8}}
    for name, scores, nll in (("a", [1, 1, 0, 0], 4.0), ("b", [1, 0, 0, 0], 5.0)):
        samples = task_samples("task0", scores, nll=nll) + task_samples("python_docs", [0.2, 0.4], nll=0.1)
        store.run(name, samples=samples, config=text)
    run, rtn = runs = load(store, "a", "b")
    row = comparison([Compared(run, rtn=rtn)]).iloc[0]
    assert (row["accuracy"], row["nll"], row["samples"]) == (0.5, 4.0, 4)
    assert (row["accuracy.task0"], row["accuracy.python_docs"]) == (0.5, pytest.approx(0.3))
    assert (row["vs_rtn"], row["nll_vs_rtn"]) == (0.25, -1.0) and row["vs_rtn_p"] == 1.0
    values, _, strata = aligned(runs, "nll")
    assert values.tolist() == [[4.0] * 4, [5.0] * 4] and set(strata) == {"task0"}
    assert aligned(runs, "nll", "python_docs")[0].tolist() == [[0.1] * 2] * 2
    store.run("alone", samples=task_samples("python_docs", [0.2, 0.4], nll=0.1), config=text)
    assert comparison([Compared(*load(store, "alone"))]).iloc[0]["accuracy"] == pytest.approx(0.3)


def test_different_samples_are_refused(store, task_samples):
    store.run("a", samples=task_samples("t", [1, 1, 0]))
    store.run("b", samples=task_samples("t", [1, 1]))
    run, other = load(store, "a", "b")
    with pytest.raises(EvaluationError, match=r"1 only in a \(such as \('t', 's2'\)\), 0 only in b"):
        comparison([Compared(run, other)])


def test_data_that_changed_between_runs_is_refused(store):
    """Same samples, other questions or answers: a data set that was fetched again."""
    for name, said in (("a", "1" * 64), ("b", "2" * 64), ("c", "1" * 64)):
        store.run(name, data={"evaluation": {"documents": {"task0": said}}})
    run, other, same = load(store, "a", "b", "c")
    with pytest.raises(EvaluationError, match=r"the data of task0 changed between runs a .* and b .*evaluation/eb"):
        comparison([Compared(run, other)])
    with pytest.raises(EvaluationError, match="the data of task0 changed"):
        aligned([run, same, other], "score")
    assert comparison([Compared(run, same)])["vs_16bit"].iloc[0] == 0


def test_pairing_follows_sample_ids_not_file_order(store, task_samples):
    store.run("a", samples=task_samples("t", RIGHT))
    store.run("b", samples=task_samples("t", RIGHT)[::-1])
    run, other = load(store, "a", "b")
    row = comparison([Compared(run, other)]).iloc[0]
    assert (row["vs_16bit"], row["vs_16bit_p"]) == (0.0, 1.0)


def test_mcnemar_is_of_the_pairs(store):
    store.run("a", scores=[(1, 1, 1, 1, 1, 1, 0, 0)])
    store.run("b", scores=[(1, 1, 0, 0, 0, 0, 0, 0)])
    run, other = load(store, "a", "b")
    assert comparison([Compared(run, other)]).iloc[0]["vs_16bit_p"] == pytest.approx(1 / 8)  # four to none


def test_a_sample_twice_is_refused(store, task_samples):
    store.run("a", samples=task_samples("t", [1, 0]) + task_samples("t", [1]))
    with pytest.raises(EvaluationError, match="'s0' of task 't' twice"):
        comparison([Compared(run) for run in load(store, "a")])


def test_partial_credit_has_no_mcnemar(store, task_samples):
    store.run("a", samples=task_samples("t", [0.3, 1, 0, 1]))
    store.run("b", samples=task_samples("t", [0, 1, 0, 1]))
    run, other = load(store, "a", "b")
    row = comparison([Compared(run, other)]).iloc[0]
    assert math.isnan(row["vs_16bit_p"])
    assert row["vs_16bit"] == pytest.approx(0.075)


def test_nll_is_absent_or_pairs_what_both_have(store):
    store.run("a", nll=[1.0, None, 3.0, 5.0])
    store.run("b", nll=[0.5, 9.0, None, 4.0])
    store.run("c", nll=None)
    a, b, c = load(store, "a", "b", "c")
    frame = comparison([Compared(a, b), Compared(c, b)])
    assert frame["nll"].iloc[0] == pytest.approx(3.0)
    assert frame["nll_vs_16bit"].iloc[0] == pytest.approx(0.75)  # (0.5 + 1.0) / 2
    assert math.isnan(frame["nll"].iloc[1]) and math.isnan(frame["nll_vs_16bit"].iloc[1])


def test_only_keys_that_tell_runs_apart_become_columns(store):
    store.run("a", config={"seed": 0, "store": "/x", "tracking.group": "g0"})
    store.run("b", config={"seed": 1, "store": "/y", "tracking.group": "g1"})
    store.run("c", method="awq", config={"sensitivity.kind": "uniform", "sensitivity.nodes": None})
    frame = comparison([Compared(run) for run in load(store, "a", "b", "c")])
    assert frame.attrs["config"] == ["seed"]
    assert frame["seed"].tolist() == [0, 1, 0]


def test_a_choice_within_one_method_is_shown_once(store):
    # kind and nodes change together: kind says it. nodes changing under one kind is a column of its own.
    store.run("a", config={"sensitivity.kind": "qig", "sensitivity.nodes": 4})
    store.run("b", config={"sensitivity.kind": "permuted", "sensitivity.nodes": 0})
    runs = load(store, "a", "b")
    assert comparison([Compared(run) for run in runs]).attrs["config"] == ["sensitivity.kind"]
    store.run("c", config={"sensitivity.kind": "qig", "sensitivity.nodes": 8})
    runs += load(store, "c")
    assert comparison([Compared(run) for run in runs]).attrs["config"] == ["sensitivity.kind", "sensitivity.nodes"]


def test_what_follows_from_method_and_setting_is_no_column(store):
    store.run("a", config={"sensitivity.reference": "zero"})
    store.run("b", config={"sensitivity.reference": "quantized", "quant.name": "w4a8"})
    frame = comparison([Compared(run) for run in load(store, "a", "b")])
    assert frame.attrs["config"] == []
    store.run("c", config={"sensitivity.reference": "quantized"})
    frame = comparison([Compared(run) for run in load(store, "a", "b", "c")])
    assert frame.attrs["config"] == ["sensitivity.reference"]


def test_a_run_that_quantizes_nothing_has_no_calibration_keys(store):
    store.run("a", config={"calibration.samples": 8})
    store.run("f", method="none", quantized=False, config={"calibration.samples": 99})
    assert comparison([Compared(run) for run in load(store, "a", "f")]).attrs["config"] == []
    store.run("b", config={"calibration.samples": 16})
    frame = comparison([Compared(run) for run in load(store, "a", "f", "b")])
    assert frame.attrs["config"] == ["calibration.samples"]
    assert frame["calibration.samples"].iloc[[0, 2]].tolist() == [8, 16]
    assert math.isnan(frame["calibration.samples"].iloc[1])


def test_a_run_without_data_has_no_seed(store):
    store.run("a", config={"seed": 0})
    data_free = {"calibration": {"samples": [], "sha256": None}, "quantized": "qr", "evaluation": "er"}
    store.run("r", method="rtn", config={"seed": 5, "calibration.samples": 99}, stages=data_free)
    assert comparison([Compared(run) for run in load(store, "a", "r")]).attrs["config"] == []


def test_accuracy_by_type(store):
    store.run("a", scores=[RIGHT], types=["count", "count", "exists", "exists"])
    frame = by_type(load(store, "a"))
    assert frame[["task", "type", "n", "accuracy"]].values.tolist() == [
        ["task0", "count", 2, 1.0], ["task0", "exists", 2, 0.5]]
    assert frame["run"].tolist() == ["a", "a"]


def test_questions_without_a_type_are_no_type(store):
    store.run("a", scores=[RIGHT, RIGHT], types=["", "count", "", "count"])
    frame = by_type(load(store, "a"))
    assert frame[["task", "type", "n"]].values.tolist() == [["task0", "count", 2], ["task1", "count", 2]]
    store.run("b", types=["", "", "", ""])
    none = by_type(load(store, "b"))
    assert none.empty and list(none) == list(frame)
    assert "question type" not in terminal(comparison([Compared(run) for run in load(store, "b")]), none)
