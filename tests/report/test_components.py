"""The parts of a mean's variance and its degrees of freedom, where images differ in their numbers of questions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from qig.report.statistics import compare
from qig.report.statistics.components import Layout, components

# Two benchmarks: three images with 1, 2 and 9 questions, and four with 5, 1, 1 and 3.
SIZES = {"a": (1, 2, 9), "b": (5, 1, 1, 3)}
STRATA = [name for name, sizes in SIZES.items() for size in sizes for _ in range(size)]
IMAGES = [f"{name}{image}" for name, sizes in SIZES.items() for image, size in enumerate(sizes) for _ in range(size)]


def by_loops(values: np.ndarray) -> tuple[float, float]:
    """The seeds' part and the images' (with the rest's) in the variance of the mean of benchmarks' means, unbiased.

    An image's part in the mean is the sum of its questions' deviations from its benchmark's mean, over as many
    questions as the benchmark has; what seeds move all questions by moves an image's part by its share of them.
    """
    seeds, questions = values.shape
    images = dict.fromkeys(zip(STRATA, IMAGES, strict=True))
    centre = {name: np.mean([values[s, q] for s in range(seeds) for q in range(questions) if STRATA[q] == name])
              for name in SIZES}
    part, share, correction = {}, {}, {}
    for name, image in images:
        inside = [q for q in range(questions) if IMAGES[q] == image]
        weight = 1 / (len(SIZES) * STRATA.count(name))
        share[image] = weight * len(inside)
        correction[image] = len(SIZES[name]) / (len(SIZES[name]) - 1)
        for s in range(seeds):
            part[s, image] = weight * sum(values[s, q] - centre[name] for q in inside)
    effect = [sum(part[s, image] for image in share) for s in range(seeds)]
    rest = clusters = 0.0
    for image in share:
        mean = sum(part[s, image] for s in range(seeds)) / seeds
        clusters += correction[image] * mean**2
        for s in range(seeds):
            rest += correction[image] * (part[s, image] - mean - effect[s] * share[image]) ** 2
    between = sum(value**2 for value in effect)
    return (between - rest) / (seeds - 1) / seeds, clusters


@pytest.mark.parametrize("spread", [2, 10])
def test_unequal_images_of_two_benchmarks_by_loops(spread):
    rng = np.random.default_rng(0)
    of_image = {image: rng.normal() for image in IMAGES}
    values = np.array([[of_image[image] + rng.normal() for image in IMAGES] for _ in range(4)])
    values += spread * rng.standard_normal((4, 1))
    found, (seeds, clusters) = components(values, Layout.of(IMAGES, STRATA)), by_loops(values)
    assert seeds > 0
    assert (found.seeds, found.clusters) == (pytest.approx(seeds), pytest.approx(clusters))


def test_seeds_alone_are_the_t_test_over_seeds_however_unequal_the_images():
    effects = np.array([0.1, 0.5, 0.2, 0.9, 0.4])
    found = compare(np.tile(effects[:, None], (1, len(IMAGES))), IMAGES, STRATA, resamples=10)
    expected = stats.ttest_1samp(effects, 0)
    assert found.error == pytest.approx(effects.std(ddof=1) / 5**0.5)
    assert (found.df, found.p) == (pytest.approx(4), pytest.approx(expected.pvalue))


def test_seeds_that_move_benchmarks_apart_are_drawn_by_the_mean_of_the_benchmarks():
    """Twelve questions here and ten there: a seed's effect is the mean of the two, not that of all questions."""
    effects = {"a": np.array([0.0, 3.0, 1.0]), "b": np.array([1.0, 2.0, -1.0])}
    values = np.array([effects[stratum] for stratum in STRATA]).T
    (seeds, clusters), means = by_loops(values), (effects["a"] + effects["b"]) / 2
    assert clusters == pytest.approx(0) and seeds > 0  # every image of a benchmark says the same
    found = compare(values, IMAGES, STRATA)
    error_of_drawn = means.std() / 3**0.5
    widened = stats.t.ppf(0.975, 2) / stats.norm.ppf(0.975) * seeds**0.5 / error_of_drawn
    # The least of three seeds fills a resample with odds of 1 in 27.
    assert found.low == pytest.approx(means.mean() + widened * (means.min() - means.mean()))
    assert found.high == pytest.approx(means.mean() + widened * (means.max() - means.mean()))


def test_few_images_bound_the_degrees_of_freedom_however_many_the_seeds():
    rng = np.random.default_rng(0)
    values = 0.4 + np.array([-1.0, 0.2, 0.9]) + 0.05 * rng.standard_normal((9, 1)) + 0.01 * rng.standard_normal((9, 3))
    rows, columns = values.mean(axis=1), values.mean(axis=0)
    rest = ((values - rows[:, None] - columns + values.mean()) ** 2).sum() / (8 * 2)
    seeds, images = 3 * rows.var(ddof=1), 9 * columns.var(ddof=1)
    df = (seeds + images - rest) ** 2 / (seeds**2 / 8 + images**2 / 2 + rest**2 / 16)
    assert seeds > rest and 2 < df < 2.1
    assert compare(values, range(3), resamples=10).df == pytest.approx(df)


def test_the_variance_is_unbiased_with_unequal_images():
    """On the average over simulated grids the estimate is the variance that the means have."""
    rng, means, variances = np.random.default_rng(1), [], []
    layout, index = Layout.of(IMAGES, STRATA), np.unique(IMAGES, return_inverse=True)[1]
    for _ in range(3000):
        values = 1.5 * rng.standard_normal((3, 1)) + rng.standard_normal(index.max() + 1)[index]
        values = values + 0.3 * rng.standard_normal((3, len(IMAGES)))
        found = components(values, layout)
        means.append(found.mean)
        variances.append(found.error**2)
    assert np.mean(variances) == pytest.approx(np.var(means), rel=0.1)


@pytest.mark.parametrize(("seed", "seed_sd", "image_sd", "floor"), [(2, 0.7, 1, False), (4, 0.5, 0, True)])
def test_satterthwaites_degrees_of_freedom_from_the_three_mean_squares(seed, seed_sd, image_sd, floor):
    rng = np.random.default_rng(seed)
    values = 0.4 + seed_sd * rng.standard_normal((6, 1)) + image_sd * rng.standard_normal((1, 15))
    values = values + rng.standard_normal((6, 15))
    rows, columns = values.mean(axis=1), values.mean(axis=0)
    rest = ((values - rows[:, None] - columns + values.mean()) ** 2).sum() / (5 * 14)
    seeds, images = 15 * rows.var(ddof=1), 6 * columns.var(ddof=1)
    assert seeds > rest
    df = (seeds + images - rest) ** 2 / (seeds**2 / 5 + images**2 / 14 + rest**2 / 70)
    found = compare(values, range(15), resamples=10)
    assert (df < 5) == floor
    assert found.df == pytest.approx(max(df, 5))
    error = np.sqrt((seeds + images - rest) / 90)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(values.mean()) / error, found.df))
