"""Search curves, score distributions: their data by hand."""

import numpy as np
import pytest

from qig.errors import StoreError
from qig.report.figures import score_distribution, search_curves
from qig.report.records import Sensitivities, load_run


def test_losses_are_relative_to_the_least_and_the_chosen_is_marked(store):
    store.run("a")
    frame = search_curves.data(load_run(store.root, "a"))
    assert list(frame.loss) == [2.0, 1.0] * 4
    assert list(frame.chosen) == [False, True] * 4
    attention, mlp = search_curves.draw(frame).axes[:2]
    assert [axes.get_title() for axes in (attention, mlp)] == ["attention input", "MLP input"]
    # a curve and a mark a block
    assert [list(line.get_xdata()) for line in attention.lines] == [[0.0, 0.5], [0.5]] * 2


def test_a_run_without_a_search_has_no_curves(store):
    store.run("r", method="rtn", sites=[])
    with pytest.raises(StoreError, match="no site of it was searched"):
        search_curves.data(load_run(store.root, "r"))


def unclipped(store, values, kinds, samples):
    config = {"sensitivity.clip": "none", "sensitivity.clip_factor": 1.5}
    store.run("a", config=config)
    run = load_run(store.root, "a")
    weights = {(0, "attn_in"): np.array(values, np.float32)}
    run.__dict__["sensitivities"] = Sensitivities(weights, np.array(kinds, np.uint8), np.array(samples, np.int32))
    return run


def test_scores_are_counted_by_kind_and_bounds_are_those_of_each_sample(store):
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.lognormal(size=40), 7 * rng.lognormal(size=30)])
    values[[3, 50]] = 60, 900
    samples = np.repeat([0, 1], [40, 30])
    kinds = rng.choice([1, 2, 3, 4], 70)
    frame = score_distribution.data(unclipped(store, values, kinds, samples))
    relative, bounds = values.copy(), np.empty(70)
    for sample in (0, 1):
        chosen = samples == sample
        relative[chosen] /= values[chosen].mean()
        first, third = np.percentile(relative[chosen], [25, 75])
        bounds[chosen] = third + 1.5 * (third - first)
    assert frame.clipped.iloc[0] == pytest.approx((relative > bounds).mean())
    assert frame.bound_low.iloc[0] == pytest.approx(min(bounds), rel=1e-5)
    assert frame.bound_high.iloc[0] == pytest.approx(max(bounds), rel=1e-5)
    assert frame.tokens.sum() == 70
    for code, kind in {1: "prompt", 2: "vision", 3: "answer", 4: "special"}.items():
        part = frame[frame.kind == kind]
        assert part.tokens.sum() == (kinds == code).sum()
        for row in part[part.left >= 2].itertuples():
            assert row.tokens == ((relative >= row.left) & (relative < row.right) & (kinds == code)).sum()


def test_scores_of_zero_fall_into_the_lowest_bin(store):
    frame = score_distribution.data(unclipped(store, [0, 1, 1, 2], [2, 2, 1, 1], [0, 0, 0, 0]))
    lowest = frame[frame.left == frame.left.min()]
    assert lowest.set_index("kind").tokens["vision"] == 1


def test_a_clipped_run_is_refused(store):
    store.run("a", config={"sensitivity.clip": "iqr"})
    with pytest.raises(StoreError, match=r"got sensitivity\.clip=iqr, expected none"):
        score_distribution.data(load_run(store.root, "a"))
