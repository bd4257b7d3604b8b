"""Hierarchical intervals, tests and power against closed forms, scipy and simulated truth."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from qig.report.statistics import compare, detectable, power


def simulated(rng, *, seed_sd, image_sd, rest_sd, seeds, images, each=2):
    """Values [seeds, images * each] of mean 0, and the images."""
    image = image_sd * rng.standard_normal((1, images)) + rest_sd * rng.standard_normal((seeds, images))
    values = np.repeat(image, each, axis=1) + seed_sd * rng.standard_normal((seeds, 1))
    return values, np.repeat(np.arange(images), each)


@given(st.integers(2, 40), st.integers(0, 10**6))
def test_one_seed_one_question_an_image_is_the_ordinary_t_test(n, seed):
    values = np.random.default_rng(seed).normal(0.3, 1, n)
    found = compare(values, range(n), resamples=20)
    expected = stats.ttest_1samp(values, 0)
    assert found.mean == pytest.approx(values.mean())
    assert found.error == pytest.approx(values.std(ddof=1) / n**0.5)
    assert (found.p, found.df) == (pytest.approx(expected.pvalue), expected.df)


def test_a_paired_test_of_two_columns_is_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 30), rng.normal(0.5, 1, 30)
    assert compare(a - b, range(30)).p == pytest.approx(stats.ttest_rel(a, b).pvalue)


def test_one_seed_has_the_interval_of_the_plain_bootstrap():
    rng = np.random.default_rng(1)
    values, images = rng.random(120), rng.integers(0, 30, 120)
    sums, sizes = np.bincount(images, weights=values), np.bincount(images).astype(float)
    plain = stats.bootstrap(
        (sums, sizes), lambda s, n, axis: s.sum(axis=axis) / n.sum(axis=axis), paired=True, vectorized=True,
        method="percentile", n_resamples=10_000, rng=0,
    ).confidence_interval  # fmt: skip
    ours = compare(values, images)
    assert ours.mean == pytest.approx(values.mean())
    assert (ours.low, ours.high) == (pytest.approx(plain.low, abs=0.004), pytest.approx(plain.high, abs=0.004))


def test_the_interval_matches_a_full_enumeration_of_resamples():
    values, images = np.array([1.0, 0, 1, 1, 0, 0.5]), [0, 0, 1, 1, 1, 2]
    sums, sizes = np.array([1, 2, 0.5]), np.array([2, 3, 1])
    drawn = np.array(list(itertools.product(range(3), repeat=3)))
    ratios = sums[drawn].sum(1) / sizes[drawn].sum(1)
    found = compare(values, images, confidence=0.8, resamples=60_000)
    assert found.mean == pytest.approx(3.5 / 6)  # over samples, not over images
    assert (found.low, found.high) == pytest.approx(np.quantile(ratios, [0.1, 0.9]), abs=0.02)


def test_questions_about_one_image_widen_the_interval():
    values = np.repeat(np.random.default_rng(0).integers(0, 2, 50), 8)
    clustered, independent = compare(values, np.repeat(np.arange(50), 8)), compare(values, np.arange(400))
    assert clustered.high - clustered.low > 2 * (independent.high - independent.low)


def test_copies_of_a_question_in_an_image_do_not_add_information():
    rng = np.random.default_rng(2)
    values = rng.normal(0, 1, 25)
    once, thrice = compare(values, range(25)), compare(np.repeat(values, 3), np.repeat(range(25), 3))
    assert thrice.error == pytest.approx(once.error)
    assert (thrice.low, thrice.high) == (pytest.approx(once.low), pytest.approx(once.high))


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.1, 0.7, 1.0]), min_size=4, max_size=30), st.integers(2, 7))
def test_copies_of_a_seed_do_not_add_information(values, seeds):
    images = np.arange(len(values)) // 2
    once, copies = (compare(np.tile(values, (n, 1)), images, resamples=200) for n in (1, seeds))
    assert (copies.error, copies.df) == (pytest.approx(once.error, abs=1e-12), pytest.approx(once.df))
    assert (copies.low, copies.high) == (pytest.approx(once.low), pytest.approx(once.high))


def test_seeds_alone_are_the_t_test_over_seeds():
    # Without any spread between images a seed's mean is known exactly, and the seeds are a sample of five.
    effects = np.array([0.1, 0.5, 0.2, 0.9, 0.4])
    found = compare(np.tile(effects[:, None], (1, 30)), range(30))
    assert found.p == pytest.approx(stats.ttest_1samp(effects, 0).pvalue)
    assert found.df == pytest.approx(4)
    half = stats.t.ppf(0.975, 4) * effects.std(ddof=1) / 5**0.5
    # The bootstrap of five values is coarse and has lighter tails than the t distribution.
    assert found.high - found.low == pytest.approx(2 * half, rel=0.12)


@pytest.mark.parametrize(("effects", "confidence"), [((0.1, 0.7), 0.95), ((0.1, 0.5, 0.2), 0.95), ((0.3, -0.2), 0.6)])
def test_few_seeds_alone_reach_as_far_as_their_extremes_widened_by_students_t(effects, confidence):
    """The least of S seeds fills a resample with odds of 1 in S^S, which is more than the interval leaves outside."""
    effects, seeds, level = np.array(effects), len(effects), (1 + confidence) / 2
    assert seeds**-seeds > 1 - level
    found = compare(np.tile(effects[:, None], (1, 30)), range(30), confidence=confidence)
    widened = stats.t.ppf(level, seeds - 1) / stats.norm.ppf(level) * (seeds / (seeds - 1)) ** 0.5
    mean = effects.mean()
    assert found.low == pytest.approx(mean + widened * (effects.min() - mean))
    assert found.high == pytest.approx(mean + widened * (effects.max() - mean))


def test_balanced_designs_give_the_mean_squares_of_two_way_random_effects():
    rng = np.random.default_rng(4)
    values = 2 * rng.standard_normal((6, 1)) + rng.standard_normal((1, 15)) + rng.standard_normal((6, 15))
    rows, columns = values.mean(axis=1), values.mean(axis=0)
    rest = values - rows[:, None] - columns + values.mean()
    squares = 15 * rows.var(ddof=1), 6 * columns.var(ddof=1), (rest**2).sum() / (5 * 14)
    assert compare(values, range(15)).error ** 2 == pytest.approx((squares[0] + squares[1] - squares[2]) / 90)


def test_strata_count_the_same_and_their_variances_add():
    rng = np.random.default_rng(5)
    large, small = rng.normal(1, 1, 400), rng.normal(0, 3, 20)
    found = compare(np.r_[large, small], range(420), ["a"] * 400 + ["b"] * 20)
    assert found.mean == pytest.approx((large.mean() + small.mean()) / 2)
    assert found.error**2 == pytest.approx((large.var(ddof=1) / 400 + small.var(ddof=1) / 20) / 4)
    welch = stats.ttest_ind(large, -small, equal_var=False)  # the same sum of two means: the noisier one's 19 count
    assert (found.df, found.p) == (pytest.approx(welch.df), pytest.approx(welch.pvalue))
    seeds = compare(np.tile(np.r_[large, small], (3, 1)), range(420), ["a"] * 400 + ["b"] * 20, resamples=10)
    assert (seeds.error, seeds.df) == (pytest.approx(found.error), pytest.approx(found.df))


def test_three_benchmarks_count_the_same_in_the_interval_too():
    """Two do not vary; the third has images of 0 and 4, so that its resampled means are 0, 2 and 4."""
    found = compare([0, 0, 1, 1, 0, 4], range(6), ["a", "a", "b", "b", "c", "c"])
    assert (found.low, found.high) == (pytest.approx(1 / 3), pytest.approx(5 / 3))


def test_an_image_name_in_two_strata_is_two_images():
    values = np.random.default_rng(6).normal(0, 1, 20)
    strata = ["a"] * 10 + ["b"] * 10
    assert compare(values, [*range(10)] * 2, strata) == compare(values, range(20), strata)


@pytest.mark.parametrize("spread", [(1, 0.1, 0.1), (0, 1, 0.2), (0, 0, 2), (0.2, 1, 1)])
def test_intervals_cover_a_known_truth_and_tests_keep_their_level(spread):
    rng = np.random.default_rng(7)
    covered, found, errors = [], [], []
    for index in range(300):
        values, images = simulated(rng, **dict(zip(("seed_sd", "image_sd", "rest_sd"), spread, strict=True)),
                                   seeds=5, images=40)
        one = compare(values, images, resamples=400, seed=index)
        covered.append(one.low <= 0 <= one.high)
        found.append(one.p < 0.05)
        errors.append((one.mean, one.error**2))
    # Three standard errors of a share of 0.95 among 300 are 0.038; percentile intervals fall short by a little.
    assert 0.89 <= np.mean(covered) <= 0.99
    assert np.mean(found) <= 0.1
    means, variances = np.array(errors).T
    # Above the truth where seeds do not matter, since a negative part of theirs is taken as 0; never far below.
    assert 0.75 <= np.mean(variances) / means.var() <= 1.5


def test_ignoring_the_seeds_would_not_cover():
    rng = np.random.default_rng(8)
    covered = []
    for index in range(200):
        values, images = simulated(rng, seed_sd=1, image_sd=0.1, rest_sd=0.1, seeds=5, images=40)
        one = compare(values.mean(axis=0), images, resamples=200, seed=index)
        covered.append(one.low <= 0 <= one.high)
    assert np.mean(covered) < 0.3


@given(st.integers(1, 4), st.integers(2, 12), st.integers(0, 10**6))
def test_the_difference_turned_round_is_its_mirror_image(seeds, n, seed):
    values = np.random.default_rng(seed).normal(0, 1, (seeds, n))
    forth, back = compare(values, range(n), resamples=200), compare(-values, range(n), resamples=200)
    assert forth.mean == pytest.approx(-back.mean)
    assert (forth.low, forth.p) == (pytest.approx(-back.high, abs=1e-9), pytest.approx(back.p))


def test_equal_arguments_give_equal_bits_and_the_order_of_samples_does_not_move_the_error():
    rng = np.random.default_rng(9)
    values, images, order = rng.normal(0, 1, (3, 50)), rng.integers(0, 12, 50), rng.permutation(50)
    assert compare(values, images) == compare(values, images)
    assert compare(values[:, order], images[order]).error == pytest.approx(compare(values, images).error)


@given(st.integers(2, 6), st.integers(2, 8), st.integers(0, 10**6))
def test_degrees_of_freedom_stay_between_those_of_the_parts(seeds, images, seed):
    values = np.random.default_rng(seed).normal(0, 1, (seeds, images))
    found = compare(values, range(images), resamples=10)
    assert min(seeds, images) - 1 <= found.df <= images - 1 + seeds - 1 + 1e-9
    assert np.isfinite(detectable(found.error, found.df))


def test_no_difference_at_all_and_a_single_image():
    same = compare(np.zeros((2, 6)), [0, 0, 1, 1, 2, 2])
    assert (same.mean, same.low, same.high, same.error, same.p) == (0, 0, 0, 0, 1)
    single = compare([1.0, 0.0], ["image", "image"])
    assert single.mean == 0.5 and np.isnan([single.low, single.high, single.error, single.p]).all()
    alike = compare([0.0, 0.0], ["image", "image"])
    assert (alike.mean, alike.low, alike.high, alike.error, alike.p) == (0, 0, 0, 0, 1)
    for values in ([0.5, 0.0, 1.0], [0.0, 0.0, 0.0]):  # one benchmark of two has a single image
        found = compare(values, range(3), ["a", "b", "b"])
        assert found.mean == pytest.approx(values[0] / 2 + sum(values[1:]) / 4)
        expected = [np.nan] * 4 if any(values) else [0, 0, 0, 1]
        assert np.array_equal([found.low, found.high, found.error, found.p], expected, equal_nan=True)


@pytest.mark.parametrize(("values", "expected"), [
    (np.ones(6), 2 / 2**6), (-np.ones((3, 4)), 2 / 2**4), (np.r_[np.ones(5), np.zeros(5)], 2 / 2**5),
    (np.r_[np.ones(5), -np.ones(5) / 2], 1),
])  # fmt: skip
def test_where_no_image_varies_only_their_number_speaks(values, expected):
    """A standard error of 0 is no certainty: n images all fall on one side by chance with odds of 2 in 2^n."""
    count = values.shape[-1]
    strata = ["a"] * count if count < 10 else ["a"] * 5 + ["b"] * 5
    found = compare(values, range(count), strata, resamples=10)
    assert (found.error, found.low, found.high) == (0, pytest.approx(found.mean), pytest.approx(found.mean))
    assert found.p == pytest.approx(expected)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="2 values a seed, 3 clusters"):
        compare([1.0, 2.0], [1, 2, 3])
    with pytest.raises(ValueError, match="no samples"):
        compare(np.zeros((1, 0)), [])
    with pytest.raises(ValueError, match="1 values of 2"):
        compare([1.0, np.nan], [1, 2])


def test_power_of_the_t_test_as_simulated():
    rng = np.random.default_rng(10)
    n, true = 12, 0.9
    samples = rng.normal(true, 1, (20_000, n))
    found = stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05
    assert power(true, n**-0.5, n - 1) == pytest.approx(found.mean(), abs=0.01)


@given(st.floats(1e-6, 1e3), st.integers(3, 5000))
def test_the_detectable_difference_has_the_power_that_was_asked_for(error, df):
    assert power(detectable(error, df), error, df) == pytest.approx(0.8, abs=1e-6)


def test_the_detectable_difference_in_large_samples_is_the_textbooks():
    assert detectable(2.0, 1e5) == pytest.approx(2 * (1.959964 + 0.841621), rel=1e-4)
    assert np.isnan([detectable(0.0, 10), detectable(np.nan, np.nan)]).all()
