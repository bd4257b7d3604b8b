"""Cells, controls, ranks and corrections of an experiment, from fabricated runs."""

import math

import numpy as np
import pytest

from qig.errors import ConfigError, EvaluationError
from qig.experiment.gather import Found, Row
from qig.experiment.spec import Table
from qig.report.metrics import METRICS, rank_agreements
from qig.report.records import load_run
from qig.report.statistics import compare, power
from qig.report.statistics.significance import holm
from qig.report.tables.cells import cells
from qig.report.tables.winners import winners
from qig.report.tables.write import write_experiment

SCORES = {"16 bit": [1, 1, 1, 1, 1, 1, 1, 1], "CWE": [1, 0, 1, 0, 1, 0, 0, 0], "MBQ": [1, 0, 1, 1, 1, 0, 1, 0],
          "QIG": [1, 1, 1, 1, 1, 1, 1, 0]}


@pytest.fixture
def made(store):
    """``made(rows, **table)``: rows of (arm, point, scores or an earlier run's id)."""
    def make(rows, /, **changes):
        found = []
        for index, (arm, point, scores) in enumerate(rows):
            name = scores if isinstance(scores, str) else store.run(f"r{index}", scores=[scores])
            found.append(Row(arm, point, load_run(store.root, name)))
        given = {"title": "T", "caption": "C.", "rows": ["arm"], "metrics": ["accuracy"], "controls": ["CWE"]}
        return Found("fake", (), Table(**given | changes), found)

    return make


def by_arm(frame, arm, metric="accuracy"):
    return frame[(frame["arm"] == arm) & (frame["metric"] == metric)].iloc[0]


def test_values_and_paired_differences(made):
    frame = cells(made([(arm, {}, scores) for arm, scores in SCORES.items()], references=["16 bit"]))
    qig = by_arm(frame, "QIG")
    assert (qig["value"], qig["vs_CWE"], qig["samples"]) == (7 / 8, 4 / 8, 8)
    # Two questions an image, as fabricated.
    expected = compare(np.subtract(SCORES["QIG"], SCORES["CWE"]), [0, 0, 1, 1, 2, 2, 3, 3])
    assert (qig["vs_CWE_low"], qig["vs_CWE_high"], qig["vs_CWE_p"]) == (expected.low, expected.high, expected.p)
    mbq, own = by_arm(frame, "MBQ"), compare(np.subtract(SCORES["MBQ"], SCORES["CWE"]), [0, 0, 1, 1, 2, 2, 3, 3])
    assert power(mbq["vs_CWE_detectable"], own.error, own.df) == pytest.approx(0.8)
    alone = compare(SCORES["QIG"], [0, 0, 1, 1, 2, 2, 3, 3])
    assert alone.low < alone.high and (qig["low"], qig["high"]) == (alone.low, alone.high)
    assert math.isnan(by_arm(frame, "CWE")["vs_CWE"])
    assert qig["vs_CWE_runs"] == by_arm(frame, "CWE")["runs"] == "r1"


def test_holm_is_over_the_table_and_references_make_no_claim(made):
    frame = cells(made([(arm, {}, scores) for arm, scores in SCORES.items()], references=["16 bit"]))
    claims = [by_arm(frame, arm) for arm in ("MBQ", "QIG")]
    assert [c["vs_CWE_holm"] for c in claims] == holm([c["vs_CWE_p"] for c in claims])
    reference = by_arm(frame, "16 bit")
    assert math.isnan(reference["vs_CWE_holm"]) and math.isnan(reference["rank"]) and reference["vs_CWE"] == 5 / 8


def test_holm_is_over_each_control_and_metric_by_itself(made, store):
    rng = np.random.default_rng(3)
    rows = []
    for arm in ("CWE", "MBQ", "QIG", "QIG, permuted"):
        name = store.run(arm[-8:], scores=[rng.integers(0, 2, 24).tolist()], nll=rng.random(24).tolist())
        rows.append((arm, {}, name))
    frame = cells(made(rows, metrics=["accuracy", "nll"], controls=["CWE", "QIG, permuted"]))
    for _, part in frame.groupby("metric"):
        for control in ("CWE", "QIG, permuted"):
            p, corrected = (part[part["arm"] != control][f"vs_{control}_{name}"].tolist() for name in ("p", "holm"))
            assert len(p) == 3 and corrected == holm(p) != p


def test_ranks_are_within_the_other_keys_and_ties_share(made):
    point = [{"quant": "a"}, {"quant": "b"}]
    rows = [(arm, point[0], scores) for arm, scores in SCORES.items() if arm != "16 bit"]
    rows += [("CWE", point[1], SCORES["QIG"]), ("MBQ", point[1], SCORES["QIG"]), ("QIG", point[1], SCORES["MBQ"])]
    frame = cells(made(rows, columns=["quant"]))
    ranks = {(line.quant, line.arm): (line.rank, line.mark) for line in frame.itertuples()}
    assert ranks == {("a", "QIG"): (1, "best"), ("a", "MBQ"): (2, "second"), ("a", "CWE"): (3, ""),
                     ("b", "CWE"): (1, "best"), ("b", "MBQ"): (1, "best"), ("b", "QIG"): (3, "second")}


def test_what_is_printed_alike_is_equally_good(made, store):
    for name, nll in (("a", 0.05601), ("b", 0.05604), ("c", 0.0572)):
        store.run(name, nll=nll, scores=[[1, 0]])
    found = made([("CWE", {}, "a"), ("MBQ", {}, "b"), ("QIG", {}, "c")], metrics=["nll"])
    frame = cells(found)
    assert [(line.rank, line.mark) for line in frame.itertuples()] == [(1, "best"), (1, "best"), (3, "second")]
    assert winners(found, frame).empty


def test_a_table_about_one_arm_compares_it_with_all_controls_and_ranks_nothing(made):
    rows = [(arm, {"quant": quant}, scores) for quant in "ab" for arm, scores in SCORES.items() if arm != "16 bit"]
    found = made(rows, rows=["quant"], controls=["CWE", "MBQ"], shown=["QIG"])
    frame = cells(found)
    assert list(frame["quant"]) == ["a", "b"] and list(frame["runs"]) == ["r2", "r5"]
    assert list(frame["vs_CWE"]) == [4 / 8] * 2 and list(frame["vs_MBQ"]) == [2 / 8] * 2
    assert frame["rank"].isna().all() and not frame["mark"].any() and winners(found, frame).empty
    assert list(frame["vs_CWE_holm"]) == holm(list(frame["vs_CWE_p"]))


def test_less_likelihood_is_worse_and_equals_are_not_marked(made, store):
    for name, nll in (("low", 0.1), ("high", 0.9)):
        store.run(name, nll=nll, scores=[[1, 0]])
    found = made([("CWE", {}, "high"), ("QIG", {}, "low")], metrics=["nll", "accuracy", "model_bytes"])
    frame = cells(found)
    assert by_arm(frame, "QIG", "nll")["mark"] == "best" and by_arm(frame, "QIG", "nll")["vs_CWE"] == pytest.approx(-.8)
    assert {by_arm(frame, arm, "accuracy")["mark"] for arm in ("CWE", "QIG")} == {""}
    assert by_arm(frame, "QIG", "model_bytes")["value"] == 2**20


def test_seeds_are_paired_with_the_controls_own_seeds(made):
    rng = np.random.default_rng(0)
    draws = {(arm, seed): rng.integers(0, 2, 12) for arm in ("CWE", "QIG") for seed in range(3)}
    found = made([(arm, {"seed": str(seed)}, scores.tolist()) for (arm, seed), scores in draws.items()], over=["seed"])
    line = by_arm(cells(found), "QIG")
    values = np.array([draws["QIG", s] - draws["CWE", s] for s in range(3)])
    expected = compare(values, np.repeat(range(6), 2))
    assert (line["vs_CWE"], line["vs_CWE_p"], line["seeds"]) == (pytest.approx(values.mean()), expected.p, 3)
    assert line["runs"] == "r3 r4 r5" and line["vs_CWE_runs"] == "r0 r1 r2"


def test_a_run_that_no_seed_changes_counts_once_alone_and_pairs_with_each_seed(made):
    rows = [("RTN", {"seed": "0"}, [1, 0, 0, 0]), ("RTN", {"seed": "1"}, "r0"),
            ("CWE", {"seed": "0"}, [1, 1, 0, 0]), ("CWE", {"seed": "1"}, [1, 1, 1, 0])]
    frame = cells(made(rows, over=["seed"], controls=["CWE"]))
    rtn = by_arm(frame, "RTN")
    assert rtn["runs"] == "r0 r0" and rtn["vs_CWE_runs"] == "r2 r3" and rtn["vs_CWE"] == pytest.approx(-0.375)
    alone = cells(made([row for row in rows if row[0] == "RTN"], over=["seed"], controls=["CWE"]))
    assert by_arm(alone, "RTN")["seeds"] == 1


def test_likelihoods_are_paired_on_the_samples_that_have_one_in_every_run(made, store):
    for name, nll in (("c", [0.5, 9.0, None, 4.0]), ("q", [1.0, None, 3.0, 5.0])):
        store.run(name, nll=nll)
    line = by_arm(cells(made([("CWE", {}, "c"), ("QIG", {}, "q")], metrics=["nll"])), "QIG", "nll")
    assert (line["value"], line["samples"], line["vs_CWE"]) == (pytest.approx(3.0), 3, pytest.approx(0.75))


def test_a_control_without_the_arms_own_sweep_serves_all_of_it(made):
    rows = [("CWE", {"quant": "a"}, SCORES["CWE"]), ("QIG", {"quant": "a", "nodes": "4"}, SCORES["QIG"]),
            ("QIG", {"quant": "a", "nodes": "8"}, SCORES["MBQ"])]
    frame = cells(made(rows, rows=["nodes", "arm"]))
    assert set(frame[frame["arm"] == "QIG"]["vs_CWE_runs"]) == {"r0"}


def test_two_runs_in_a_cell_and_two_controls_at_a_point_are_refused(made):
    with pytest.raises(ConfigError, match="runs r0 and r1 fall into one cell"):
        cells(made([("CWE", {"seed": "0"}, [1, 0]), ("CWE", {"seed": "1"}, [1, 1])]))
    rows = [("CWE", {"nodes": "1"}, [1, 0]), ("CWE", {"nodes": "2"}, [1, 1]), ("QIG", {}, [1, 1])]
    with pytest.raises(ConfigError, match="a control must be one run at each point"):
        cells(made(rows, rows=["nodes", "arm"]))


def test_runs_of_different_samples_are_not_compared(made):
    with pytest.raises(EvaluationError, match="different samples"):
        cells(made([("CWE", {}, [1, 0]), ("QIG", {}, [1, 0, 1])]))


def test_several_benchmarks_count_the_same_and_stand_alone_too(made, store):
    store.run("c", scores=[[0, 0, 0, 0], [0, 0]])
    store.run("q", scores=[[1, 1, 1, 0], [1, 0]])
    frame = cells(made([("CWE", {}, "c"), ("QIG", {}, "q")]))
    values = {line.metric: line.value for line in frame[frame["arm"] == "QIG"].itertuples()}
    assert values == {"accuracy": pytest.approx((0.75 + 0.5) / 2), "accuracy.task0": 0.75, "accuracy.task1": 0.5}
    differences = {line.metric: line.vs_CWE for line in frame[frame["arm"] == "QIG"].itertuples()}
    assert differences == {"accuracy": pytest.approx(0.625), "accuracy.task0": 0.75, "accuracy.task1": 0.5}


def test_the_best_is_held_against_the_second_best(made):
    found = made([(arm, {}, scores) for arm, scores in SCORES.items()], references=["16 bit"])
    duel = winners(found, cells(found)).iloc[0]
    expected = compare(np.subtract(SCORES["QIG"], SCORES["MBQ"]), [0, 0, 1, 1, 2, 2, 3, 3])
    assert (duel["best"], duel["second"], duel["difference"], duel["p"]) == ("QIG", "MBQ", 2 / 8, expected.p)
    assert (duel["runs"], duel["second_runs"], duel["holm"]) == ("r3", "r2", duel["p"])


def test_the_best_of_each_group_is_corrected_for_all_groups_of_its_metric(made, store):
    rng = np.random.default_rng(1)
    rows = [(arm, {"quant": quant}, store.run(f"{arm}{quant}", scores=[rng.integers(0, 2, 40).tolist()],
                                              nll=rng.random(40).tolist()))
            for quant in "abc" for arm in ("CWE", "MBQ", "QIG")]
    found = made(rows, columns=["quant"], metrics=["accuracy", "nll"])
    duels = winners(found, cells(found))
    assert len(duels) == 6
    for _, part in duels.groupby("metric"):
        assert part["holm"].tolist() == holm(part["p"].tolist()) != part["p"].tolist()


def test_the_best_on_one_benchmark_is_held_against_the_second_best_on_it(made, store):
    scores = {"CWE": ([1] * 6, [0, 0, 1, 0]), "QIG": ([1, 0, 1, 0, 0, 1], [1, 1, 1, 0])}
    found = made([(arm, {}, store.run(arm, scores=values)) for arm, values in scores.items()])
    duel = winners(found, cells(found)).set_index("metric").loc["accuracy.task1"]
    expected = compare([1, 1, 0, 0], [0, 0, 1, 1])
    assert (duel["best"], duel["difference"], duel["low"], duel["high"]) == ("QIG", 0.5, expected.low, expected.high)
    assert expected.low < expected.high and (duel["p"], expected.error) == (expected.p, 0.5)
    assert power(duel["detectable"], expected.error, expected.df) == pytest.approx(0.8)


@pytest.mark.parametrize("better", ["RTN", "CWE"])
def test_a_best_or_second_best_that_no_seed_changes_stands_against_each_seed_of_the_other(made, better):
    one, other = [1, 1, 1, 0, 1, 1], ([0, 0, 1, 0, 1, 0], [1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, 0])
    if better == "CWE":
        one, other = [1 - right for right in one], [[1 - right for right in seed] for seed in other]
    rows = [("RTN", {"seed": str(seed)}, "r0" if seed else one) for seed in range(3)]
    rows += [("CWE", {"seed": str(seed)}, scores) for seed, scores in enumerate(other)]
    found = made(rows, over=["seed"], controls=["MBQ"])
    duel = winners(found, cells(found)).iloc[0]
    expected = compare(np.subtract(one, other) * (1 if better == "RTN" else -1), [0, 0, 1, 1, 2, 2])
    assert (duel["best"], duel["difference"], duel["p"]) == (better, expected.mean, expected.p) and expected.seeds == 3
    same, seeds = ["r0"] * 3, ["r3", "r4", "r5"]
    assert [duel["runs"].split(), duel["second_runs"].split()] == ([same, seeds] if better == "RTN" else [seeds, same])


def test_on_a_single_image_the_best_is_best_and_nothing_is_tested(made, tmp_path):
    found = made([("CWE", {}, [1, 0]), ("MBQ", {}, [0, 0]), ("QIG", {}, [1, 1])])
    frame = cells(found)
    assert by_arm(frame, "QIG")["mark"] == "best" and frame["vs_CWE_holm"].isna().all()
    duel = winners(found, frame).iloc[0]
    assert (duel["best"], duel["second"], duel["difference"]) == ("QIG", "CWE", 0.5)
    assert math.isnan(duel["p"]) and math.isnan(duel["holm"])
    write_experiment(found, tmp_path / "results")
    assert "in 0 of them after Holm" in (tmp_path / "results" / "fake" / "fake.md").read_text()


def test_a_tie_has_no_winner(made):
    found = made([("CWE", {}, [1, 0]), ("QIG", {}, [1, 0])])
    assert winners(found, cells(found)).empty


def test_rank_agreement_is_spearmans(store):
    from scipy.stats import spearmanr

    for name in ("a", "b"):
        store.run(name)
    one, other = (load_run(store.root, name) for name in ("a", "b"))
    assert rank_agreements(one, other) == pytest.approx([1.0] * 8)  # 2 blocks, 2 sites, 2 samples
    weights = one.sensitivities.weights[0, "attn_in"]
    weights[:] = np.random.default_rng(0).random(len(weights))
    half = len(weights) // 2
    expected = spearmanr(weights[:half], other.sensitivities.weights[0, "attn_in"][:half]).statistic
    assert rank_agreements(one, other)[0] == pytest.approx(expected)


def test_numbers_of_whole_runs_are_means_over_the_seeds(made, store):
    rows = []
    for arm, seconds in {"CWE": (1.0, 2.0, 6.0), "QIG": (10.0, 20.0, 60.0)}.items():
        for seed, value in enumerate(seconds):
            timings = {"calibration": 0.5, "quantization": value, "evaluation": 1.0}
            rows.append((arm, {"seed": str(seed)}, store.run(f"{arm}{seed}", scores=[[1, 0]], timings=timings)))
    found = made(rows, over=["seed"], metrics=["calibration_seconds", "rank_agreement", "worst_rank_agreement"])
    rng = np.random.default_rng(0)
    for row in found.rows:
        for values in row.run.sensitivities.weights.values():
            values[:] = rng.random(len(values))
    frame = cells(found)
    assert [by_arm(frame, arm, "calibration_seconds")["value"] for arm in ("CWE", "QIG")] == [3.5, 30.5]
    assert math.isnan(by_arm(frame, "CWE", "rank_agreement")["value"])
    weights = {(row.arm, row.point["seed"]): row.run for row in found.rows}
    agreements = [rank_agreements(weights["QIG", seed], weights["CWE", seed]) for seed in "012"]
    line, worst = by_arm(frame, "QIG", "rank_agreement"), by_arm(frame, "QIG", "worst_rank_agreement")
    assert (line["value"], line["seeds"]) == (pytest.approx(np.mean(agreements)), 3)
    assert worst["value"] == pytest.approx(np.mean([min(found) for found in agreements]))


def test_weights_that_are_the_same_for_all_tokens_have_no_ranks(store):
    one, other = (load_run(store.root, store.run(name)) for name in ("a", "b"))
    one.sensitivities.weights[0, "attn_in"][:5] = 0.2  # of the first sample
    assert len(rank_agreements(one, other)) == len(rank_agreements(other, one)) == 7
    assert METRICS["rank_agreement"].whole(one, other) == pytest.approx(1)


def test_integrated_sites_alone_say_how_many_nodes_and_how_complete(store):
    site = {"block": 0, "site": "attn_in", "exponents": None, "losses": None, "exponent": None, "fallback": None}
    found = [(4, 0.001), (16, -0.2), (10, 0.1), (None, 0.9), (0, 0.8), (8, None)]
    sites = [{**site, "estimator": "qig", "nodes": nodes, "completeness": rest} for nodes, rest in found]
    run = load_run(store.root, store.run("a", sites=sites))
    read = {name: METRICS[name].whole(run, None) for name in ("nodes", "most_nodes", "completeness")}
    assert read == {"nodes": 10, "most_nodes": 16, "completeness": 0.2}


def test_what_is_better_and_how_large_its_unit_is():
    better = {name: metric.better for name, metric in METRICS.items() if metric.better}
    assert better == {"accuracy": 1, "nll": -1, "perplexity": -1, "completeness": -1, "rank_agreement": 1,
                      "worst_rank_agreement": 1}
    scaled = {metric.unit: metric.scale for metric in METRICS.values() if metric.scale != 1}
    assert scaled == {"%": 100, "GiB": 1 / 1024**3, "MiB": 1 / 1024**2}


def test_every_metric_reads_a_run(store):
    store.run("a")
    run = load_run(store.root, "a")
    whole = {name: metric.whole(run, run) for name, metric in METRICS.items() if metric.whole}
    assert whole["calibration_seconds"] == 7.5 and whole["completeness"] == 0.001 and whole["nodes"] == 4
    full = load_run(store.root, store.run("f", quantized=False))
    assert METRICS["model_bytes"].whole(full, None) == 3 * 2**20
    assert math.isnan(METRICS["calibration_seconds"].whole(full, None))  # not the 0 seconds of a free method
    assert math.isnan(whole.pop("perplexity"))  # questions have none
    assert all(math.isfinite(value) for value in whole.values())
    text = {"python_docs": {"nll": math.log(20)}}
    store.run("b", config={"evaluation.text": {"corpus": "python_docs", "window": 8}}, metrics=text)
    assert METRICS["perplexity"].whole(load_run(store.root, "b"), None) == pytest.approx(20)
