"""What two replicates of an experiment say of each other, in folders as ``results/`` has them."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from qig.errors import StoreError
from qig.report.replicates import data, main, page

FIRST = {"Uniform": (3.8, 3.9, 3.7), "Gradient": (4.0, 4.2, 3.9), "Attention": (3.9, 3.9, 3.9)}
AGAIN = {"Uniform": (3.7, 3.9, 3.9), "Gradient": (4.1, 4.1, 4.4), "Perturbation": (3.8, 3.8, 3.8)}


def write(root, name, values, experiment="real_weights_gptq"):
    """The folder of an experiment whose runs have this NLL, one a calibration seed; cells name the last seed first,
    and a control's the first."""
    (root / "records").mkdir(exist_ok=True)
    cells = []
    for arm, seeds in values.items():
        runs = [f"{name}{arm}{seed}" for seed in range(len(seeds))][::-1]
        for seed, nll in enumerate(seeds):
            config, metrics = {"seed": seed, "evaluation": {}}, {"python_docs": {"nll": nll, "accuracy": nll / 10}}
            found = {"config": config, "metrics": metrics}
            (root / "records" / f"{name}{arm}{seed}.json").write_text(json.dumps(found))
        controls = {f"vs_{control}_runs": [f"{name}{control}{seed}" for seed in range(3)]
                    for control in ("Uniform", "QIG, permuted") if control in values and control != arm}
        cells += [{"quant": "w3a16_g64", "method": "gptq", "arm": arm, "metric": metric, "runs": runs, **controls}
                  for metric in ("nll", "accuracy")]
    folder = root / name
    folder.mkdir()
    (folder / f"{experiment}.json").write_text(json.dumps({"experiment": experiment, "overrides": [], "cells": cells}))
    return folder


def test_a_run_moves_by_what_its_replicate_says_and_differences_are_of_both(tmp_path):
    frame, _ = data(write(tmp_path, "first", FIRST), write(tmp_path, "again", AGAIN))
    assert list(frame["arm"]) == ["Uniform", "Uniform", "Gradient", "Gradient"]  # those that both have
    nll = frame[frame["metric"] == "nll"].set_index("arm")
    uniform, gradient = nll.loc["Uniform"], nll.loc["Gradient"]
    assert uniform["moved"] == pytest.approx(np.sqrt((0.1**2 + 0 + 0.2**2) / 3 / 2))
    assert np.isnan(uniform["first"]) and uniform["runs"] == 3
    assert (gradient["first"], gradient["again"]) == (pytest.approx(0.7 / 3), pytest.approx(1.1 / 3))
    by_seed = [(0.2 + 0.4) / 2, (0.3 + 0.2) / 2, (0.2 + 0.5) / 2]
    assert gradient["both"] == pytest.approx(np.mean(by_seed))
    assert gradient["p"] == pytest.approx(stats.ttest_1samp(by_seed, 0).pvalue)
    half = stats.t.ppf(0.975, 2) * np.std(by_seed, ddof=1) / 3**0.5
    assert (gradient["low"], gradient["high"]) == pytest.approx((np.mean(by_seed) - half, np.mean(by_seed) + half))


def test_arms_stand_beside_each_control_that_both_have(tmp_path):
    first = {**FIRST, "QIG, permuted": (4.0, 4.0, 4.0)}
    again = {**AGAIN, "QIG, permuted": (3.9, 4.0, 4.1)}
    frame, table = data(write(tmp_path, "first", first), write(tmp_path, "again", again))
    nll = frame[frame["metric"] == "nll"].set_index(["control", "arm"])["both"]
    assert nll["QIG, permuted", "Gradient"] == pytest.approx(np.mean(FIRST["Gradient"] + AGAIN["Gradient"]) - 4.0)
    assert nll["QIG, permuted", "Uniform"] == pytest.approx(-nll["Uniform", "QIG, permuted"])
    assert np.isnan(nll["QIG, permuted", "QIG, permuted"]) and np.isnan(nll["Uniform", "Uniform"])
    text = page(frame, table, "made by hand")
    assert "Of 9 pairs" in text and text.count("vs QIG, permuted, first") == 2  # a pair once, however many controls
    frame, _ = data(write(tmp_path, "more", first), write(tmp_path, "fewer", AGAIN))
    assert set(frame["control"]) == {"Uniform"}


def test_noise_alone_is_found_as_large_as_it_is(tmp_path):
    rng = np.random.default_rng(0)
    true = rng.normal(4, 1, 4000)
    first, again = ({"Uniform": tuple(true + rng.normal(0, 0.05, 4000))} for _ in range(2))
    frame, _ = data(write(tmp_path, "first", first), write(tmp_path, "again", again))
    assert frame["moved"].iloc[0] == pytest.approx(0.05, rel=0.05)


def change(root, run, **changes):
    file = root / "records" / f"{run}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_text_beside_benchmarks_stands_by_itself_as_in_tables(tmp_path):
    """Its likelihoods are nats a token, those of the two benchmarks nats an answer."""
    folders = write(tmp_path, "first", {"Uniform": (1.0,)}), write(tmp_path, "again", {"Uniform": (1.0,)})
    for name, nll in (("first", 3.0), ("again", 4.0)):
        metrics = {task: {"nll": value, "accuracy": 0.5} for task, value in
                   {"python_docs": 9 * nll, "chartqa": nll, "ai2d": nll + 2}.items()}
        evaluation = {"text": {"corpus": "python_docs"}}
        change(tmp_path, f"{name}Uniform0", metrics=metrics, config={"seed": 0, "evaluation": evaluation})
    frame, _ = data(*folders)
    assert frame[frame["metric"] == "nll"]["moved"].tolist() == [pytest.approx(1 / 2**0.5)]


def test_pairs_of_other_seeds_are_refused_but_for_runs_that_read_none(tmp_path):
    first, again = write(tmp_path, "first", FIRST), write(tmp_path, "again", FIRST)
    for seed in range(3):
        change(tmp_path, f"againGradient{seed}", config={"seed": seed + 1, "evaluation": {}})
    with pytest.raises(StoreError, match=r"Gradient, runs: calibration seeds \[0, 1, 2\] in .*, \[1, 2, 3\] in "):
        data(first, again)
    fewer = {arm: values[:2] for arm, values in FIRST.items()}
    with pytest.raises(StoreError, match=r"Uniform, runs: calibration seeds \[0, 1, 2\] in .*, \[0, 1\] in "):
        data(first, write(tmp_path, "fewer", fewer))
    for folder, run in ((first, "firstGradient1"), (again, "againGradient2")):  # as a table has a run without data
        file = folder / "real_weights_gptq.json"
        found = json.loads(file.read_text())
        for cell in found["cells"]:
            if cell["arm"] == "Gradient":
                cell["runs"] = [run] * 3
        file.write_text(json.dumps(found))
    assert data(first, again)[0].set_index(["arm", "metric"]).loc[("Gradient", "nll"), "runs"] == 3


def test_the_page_says_how_far_a_run_a_difference_and_a_mean_move(tmp_path):
    """All pairs count alike, those of an arm with two seeds and of one with three."""
    first, again = ({"Uniform": values} for values in ((4.0, 4.0, 4.0), (4.2, 4.0, 4.0)))
    frame, table = data(write(tmp_path, "first", first), write(tmp_path, "again", again))  # the control is all there is
    assert frame["moved"].iloc[0] == pytest.approx((0.2**2 / 2 / 3) ** 0.5)
    frame = frame[frame["metric"] == "nll"]
    both = pd.concat([frame, frame.assign(arm="Gradient", runs=2, moved=((0.3**2 + 0.1**2) / 2 / 2) ** 0.5)])
    moved = ((0.2**2 + 0.3**2 + 0.1**2) / 2 / 5) ** 0.5
    text = page(both, table, "made by hand")
    assert "Of 5 pairs of runs" in text and f"move a run by {moved:.3f} nats (standard deviation)" in text
    assert f"a difference of two runs by {moved * 2**0.5:.3f}, and its mean over 3 seeds by " in text
    assert f"{moved * (2 / 3) ** 0.5:.3f}." in text.partition("its mean over 3 seeds by ")[2][:6]


def test_the_command_writes_beside_the_later_table(tmp_path, capsys):
    first, again = write(tmp_path, "first", FIRST), write(tmp_path, "again", AGAIN)
    assert main([str(first), str(again)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(again / "replicates.csv"), str(again / "replicates.md")]
    text = (again / "replicates.md").read_text()
    assert "W3 g64" in text and "| Gradient" in text and f"`python -m qig.report.replicates {first} {again}`" in text


def test_other_experiments_and_none_in_common_are_refused(tmp_path, capsys):
    first, other = write(tmp_path, "first", FIRST), write(tmp_path, "other", AGAIN, experiment="real_weights")
    with pytest.raises(StoreError, match="different experiments: real_weights_gptq, and real_weights"):
        data(first, other)
    with pytest.raises(StoreError, match="no arm in common"):
        data(first, write(tmp_path, "new", {"Perturbation": (3.8, 3.8, 3.8)}))
    with pytest.raises(StoreError, match="no control of experiment real_weights_gptq in common"):
        data(first, write(tmp_path, "alone", {"Gradient": (3.8, 3.8, 3.8)}))
    assert main([str(first), str(tmp_path)]) == 1
    assert "holds no table of an experiment" in capsys.readouterr().err
