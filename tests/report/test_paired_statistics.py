import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qig.report.statistics.paired import holm, mcnemar_exact, mean_interval, paired_difference


def test_identical_scores_differ_by_exactly_nothing():
    scores = [0, 1, 1, 0.3]
    for clusters in ([1, 1, 2, 2], [1, 2, 3, 4], [7, 7, 7, 7]):
        result = paired_difference(scores, scores, clusters)
        assert (result.mean, result.low, result.high) == (0, 0, 0)
    assert mcnemar_exact([0, 1, 1], [0, 1, 1]) == 1


def test_mean_is_over_samples_and_not_over_clusters():
    result = mean_interval([1, 1, 1, 0], ["a", "a", "a", "b"])
    assert (result.mean, result.n, result.clusters) == (0.75, 4, 2)


def test_interval_matches_a_full_enumeration_of_resamples():
    values, clusters = np.array([1.0, 0, 1, 1, 0, 0.5]), [0, 0, 1, 1, 1, 2]
    sums, sizes = np.array([1, 2, 0.5]), np.array([2, 3, 1])
    drawn = np.array(list(itertools.product(range(3), repeat=3)))
    ratios = sums[drawn].sum(1) / sizes[drawn].sum(1)
    result = mean_interval(values, clusters, confidence=0.8, resamples=60_000)
    assert result.low == pytest.approx(np.quantile(ratios, 0.1), abs=0.02)
    assert result.high == pytest.approx(np.quantile(ratios, 0.9), abs=0.02)


def test_one_cluster_gives_no_interval():
    result = mean_interval([1, 0, 1], ["x"] * 3)
    assert result.mean == pytest.approx(2 / 3)
    assert np.isnan(result.low) and np.isnan(result.high)


def test_clustering_widens_the_interval_of_correlated_samples():
    rng = np.random.default_rng(0)
    values = np.repeat(rng.integers(0, 2, 50), 8)
    clustered = mean_interval(values, np.repeat(np.arange(50), 8), resamples=2_000)
    independent = mean_interval(values, np.arange(400), resamples=2_000)
    assert clustered.high - clustered.low > 2 * (independent.high - independent.low)


def test_coverage_of_the_clustered_interval():
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(150):
        sizes = rng.integers(1, 8, 60)
        clusters = np.repeat(np.arange(60), sizes)
        shared = rng.normal(0, 1, 60)[clusters]
        difference = 0.3 + shared + rng.normal(0, 1, len(clusters))
        result = mean_interval(difference, clusters, resamples=500, seed=trial)
        covered += result.low <= 0.3 <= result.high
    assert 0.88 <= covered / 150 <= 0.99


def test_equal_seed_equal_bits():
    rng = np.random.default_rng(2)
    a, b, clusters = rng.random(90), rng.random(90), rng.integers(0, 20, 90)
    assert paired_difference(a, b, clusters, seed=4) == paired_difference(a, b, clusters, seed=4)
    assert paired_difference(a, b, clusters, seed=4) != paired_difference(a, b, clusters, seed=5)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10), st.integers(0, 5)), min_size=1, max_size=30))
def test_difference_is_antisymmetric_and_holds_its_mean(rows):
    a, b, clusters = zip(*rows, strict=True)
    forth = paired_difference(a, b, clusters, resamples=200)
    back = paired_difference(b, a, clusters, resamples=200)
    assert forth.mean == -back.mean == pytest.approx(np.mean(np.subtract(a, b)), abs=1e-9)
    if forth.clusters > 1:
        assert forth.low == pytest.approx(-back.high, abs=1e-9)
        assert forth.low <= forth.high


def test_misaligned_lengths_are_both_named():
    with pytest.raises(ValueError, match="3 in a, 2 in b, 3 in clusters"):
        paired_difference([1, 2, 3], [1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="2 in values, 1 in clusters"):
        mean_interval([1, 2], [1])
    with pytest.raises(ValueError, match="1 in a, 2 in b"):
        mcnemar_exact([1], [1, 0])


def test_nothing_and_not_a_number_are_refused():
    with pytest.raises(ValueError, match="no samples"):
        mean_interval([], [])
    with pytest.raises(ValueError, match="1 values of 2"):
        mean_interval([1, float("nan")], [1, 2])


def test_mcnemar_known_values():
    # 6 to 0 discordant pairs: 2 * 0.5 ** 6; 9 to 3: twice the binomial tail, 2 * 299 / 4096.
    assert mcnemar_exact([1] * 6 + [0], [0] * 6 + [0]) == pytest.approx(2 / 64)
    assert mcnemar_exact([1] * 9 + [0] * 3, [0] * 9 + [1] * 3) == pytest.approx(598 / 4096)
    with pytest.raises(ValueError, match=r"got scores \[0\.5\]"):
        mcnemar_exact([0.5, 1], [1, 0])


def test_holm_known_values():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, 1.5])


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_rejects_what_the_step_down_procedure_rejects(pvalues):
    adjusted = holm(pvalues)
    for alpha in (0.01, 0.05, 0.2):
        rejected, order = set(), sorted(range(len(pvalues)), key=pvalues.__getitem__)
        for step, index in enumerate(order):
            if pvalues[index] * (len(pvalues) - step) > alpha:
                break
            rejected.add(index)
        assert rejected == {index for index, p in enumerate(adjusted) if p <= alpha}
