"""Granularities and controls: what they change, and what they must keep."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles.views import Toy
from qig.config.schema import UniformSensitivity
from qig.data.tokens import TokenKind
from qig.sensitivity.estimator import Estimator, Scores
from qig.sensitivity.granularity import CONTROLS, GRANULARITIES, first_means, modality_means, permuted, without_first
from qig.sensitivity.weights import token_weights

VISION, SPECIAL, PADDING = TokenKind.VISION, TokenKind.SPECIAL, TokenKind.PADDING


class Fixed(Estimator):
    """Scores that follow from the token's position in its sample."""

    def __init__(self, granularity="token_special", normalize="sample", control="none", seed=0):
        super().__init__(UniformSensitivity("fixed", granularity, normalize, control, seed))

    def scores(self, view):
        return Scores([(1.5 ** torch.arange(k.shape[1])).expand(k.shape).contiguous() for k in view.kinds])


def weights_of(view, **options) -> list[torch.Tensor]:
    estimator = Fixed(**options)
    return token_weights(estimator, view, estimator.config).values


def by_sample(view, values) -> dict[str, torch.Tensor]:
    rows = zip(view.samples, values, view.kinds, strict=True)
    return {n: v[k != 0] for names, vs, ks in rows for n, v, k in zip(names, vs, ks, strict=True)}


@pytest.fixture
def view(toys):
    return toys(lengths=((9, 7), (6,))).view("mlp_in")


def test_the_mean_per_modality_leaves_weights_per_modality_alone(view):
    """MBQ gives prompt and special tokens no weight; a mean over all text would give them some."""

    class PerModality(Fixed):
        per_modality = True

        def scores(self, view):
            return Scores([torch.where(k == VISION, 0.5, (k == TokenKind.ANSWER) * 1.0) for k in view.kinds])

    plain, mean = (PerModality(control=c) for c in ("none", "modality_mean"))
    expected = token_weights(plain, view, plain.config).values
    found = token_weights(mean, view, mean.config).values
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert all((v[k == SPECIAL] == 0).all() for v, k in zip(found, view.kinds, strict=True))


@pytest.mark.parametrize("normalize", ["sample", "corpus"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_permuted_keeps_the_weights_of_every_sample(view, granularity, normalize):
    plain = by_sample(view, weights_of(view, granularity=granularity, normalize=normalize))
    options = {"granularity": granularity, "normalize": normalize, "control": "permuted"}
    values = weights_of(view, **options)
    shuffled = by_sample(view, values)
    assert all(Counter(shuffled[name].tolist()) == Counter(plain[name].tolist()) for name in plain)
    assert any(not torch.equal(shuffled[name], plain[name]) for name in plain)
    assert all((v[k == 0] == 0).all() for v, k in zip(values, view.kinds, strict=True))
    again = by_sample(view, weights_of(view, **options))
    assert all(torch.equal(shuffled[name], again[name]) for name in plain)


def test_permutations_differ_by_seed_site_block_and_sample(view):
    first = by_sample(view, weights_of(view, control="permuted"))
    others = [
        by_sample(view, weights_of(view, control="permuted", seed=1)),
        by_sample(view, weights_of(replace(view, index=1), control="permuted")),
        by_sample(view, weights_of(replace(view, site=replace(view.site, name="mlp_out")), control="permuted")),
    ]
    assert all(not torch.equal(first["0-0"], other["0-0"]) for other in others)
    renamed = replace(view, samples=[("a", "b"), ("c",)])
    assert not torch.equal(first["0-0"], by_sample(renamed, weights_of(renamed, control="permuted"))["a"])


def test_a_permutation_does_not_depend_on_the_company(toys, view):
    together = by_sample(view, weights_of(view, control="permuted"))
    for name, length in (("0-1", 7), ("1-0", 6)):
        alone = replace(toys(lengths=((length,),)).view("mlp_in"), samples=[(name,)])
        own = by_sample(alone, weights_of(alone, control="permuted"))[name]
        torch.testing.assert_close(own, together[name], rtol=1e-6, atol=0)


@given(st.lists(st.sampled_from([0, 1, 2, 3, 4]), min_size=1, max_size=30), st.text(max_size=8))
def test_permuting_moves_real_tokens_only(kinds, name):
    kinds = torch.tensor([kinds])
    values = torch.arange(1.0, kinds.shape[1] + 1)[None]
    found = permuted(values, kinds, [name])
    real = kinds != PADDING
    assert torch.equal(found[~real], values[~real])
    assert sorted(found[real].tolist()) == sorted(values[real].tolist())


@pytest.mark.parametrize("normalize", ["sample", "corpus"])
@pytest.mark.parametrize("granularity", ["token", "token_special"])
def test_modality_mean_by_loops(view, granularity, normalize):
    plain = weights_of(view, granularity=granularity, normalize=normalize)
    found = weights_of(view, granularity=granularity, normalize=normalize, control="modality_mean")
    for before, after, kinds in zip(plain, found, view.kinds, strict=True):
        for row in range(len(kinds)):
            # What the granularity gives no weight gets none back.
            weightless = (VISION, PADDING, SPECIAL) if granularity == "token" else (VISION, PADDING)
            for group in ([VISION], [k for k in TokenKind if k not in weightless]):
                where = [t for t, kind in enumerate(kinds[row].tolist()) if kind in group]
                mean = sum(float(before[row, t]) for t in where) / len(where)
                assert [float(after[row, t]) for t in where] == pytest.approx([mean] * len(where), rel=1e-6)
        torch.testing.assert_close(after.sum(1), before.sum(1))
        assert (after[kinds == 0] == 0).all()


@pytest.mark.parametrize("normalize", ["sample", "corpus"])
def test_first_mean_by_loops(view, normalize):
    """The toys are padded on the right; the same on the left."""
    plain = weights_of(view, normalize=normalize)
    found = weights_of(view, normalize=normalize, control="first_mean")
    for before, after, kinds in zip(plain, found, view.kinds, strict=True):
        for row in range(len(kinds)):
            first, *others = [t for t, kind in enumerate(kinds[row].tolist()) if kind != PADDING]
            mean = sum(float(before[row, t]) for t in others) / len(others)
            assert after[row, first] == before[row, first] != pytest.approx(mean)
            assert [float(after[row, t]) for t in others] == pytest.approx([mean] * len(others), rel=1e-6)
        torch.testing.assert_close(after.sum(1), before.sum(1))
        assert (after[kinds == 0] == 0).all()
    left = torch.tensor([[PADDING, PADDING, SPECIAL, VISION, TokenKind.ANSWER]])
    moved = first_means(torch.tensor([[7.0, 7.0, 5.0, 1.0, 3.0]]), left)
    assert moved.tolist() == [[0.0, 0.0, 5.0, 2.0, 2.0]]


@pytest.mark.parametrize("normalize", ["sample", "corpus"])
def test_without_the_first_by_loops(view, normalize):
    plain = weights_of(view, normalize=normalize)
    found = weights_of(view, normalize=normalize, control="without_first")
    for before, after, kinds in zip(plain, found, view.kinds, strict=True):
        for row in range(len(kinds)):
            first, *others = [t for t, kind in enumerate(kinds[row].tolist()) if kind != PADDING]
            total, rest = float(before[row].sum()), sum(float(before[row, t]) for t in others)
            assert before[row, first] > 0 == after[row, first]
            expected = [float(before[row, t]) * total / rest for t in others]
            assert [float(after[row, t]) for t in others] == pytest.approx(expected, rel=1e-6)
        assert (after[kinds == 0] == 0).all()


def test_without_the_first_where_padding_is_on_the_left_or_nothing_else_has_weight():
    kinds = torch.tensor([[PADDING, PADDING, SPECIAL, VISION, TokenKind.ANSWER], [PADDING] * 3 + [VISION] * 2])
    moved = without_first(torch.tensor([[7.0, 7.0, 6.0, 1.0, 3.0], [0.0, 0.0, 0.0, 2.0, 0.0]]), kinds)
    assert moved.tolist() == [[0.0, 0.0, 0.0, 2.5, 7.5], [0.0, 0.0, 0.0, 2.0, 0.0]]


def test_token_granularity_gives_special_tokens_nothing(view):
    found = by_sample(view, weights_of(view, granularity="token"))
    own = by_sample(view, weights_of(view, granularity="token_special"))
    kinds = by_sample(view, [k.float() for k in view.kinds])
    for name, weights in found.items():
        special = kinds[name] == SPECIAL
        assert special.any() and (weights[special] == 0).all() and (weights[~special] > 0).all()
        assert (own[name] > 0).all()
        assert float(weights.sum()) == pytest.approx(1, rel=1e-6)
        ratio = weights[~special] / own[name][~special]  # the others keep their proportions
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))


@pytest.mark.parametrize("control", ["permuted", *CONTROLS])
def test_no_control_gives_weight_back_to_special_tokens(view, control):
    plain, found = (weights_of(view, granularity="token", control=c) for c in ("none", control))
    assert any((k == SPECIAL).any() for k in view.kinds)
    assert all((v[k == SPECIAL] == 0).all() for v, k in zip(found, view.kinds, strict=True))
    # The toys' first token is special: the control that takes its weight finds none.
    assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True)) == (control == "without_first")


@given(
    st.integers(0, 10_000), st.sampled_from(list(GRANULARITIES)), st.sampled_from(["none", "permuted", *CONTROLS])
)
def test_weights_are_weights_whatever_the_choice(seed, granularity, control):
    """Non-negative, 0 at padding, 1 in sum, and each sample's own, in any order and company."""
    class Random(Fixed):
        def scores(self, view):
            by_name = {n: torch.rand(40, generator=torch.Generator().manual_seed(seed + hash_of(n))) for n in "abc"}
            rows = zip(view.samples, view.kinds, strict=True)
            return Scores([torch.stack([by_name[n][: k.shape[1]] for n in names]) for names, k in rows])

    def weigh(lengths, names):
        view = replace(Toy(lengths=lengths).view("mlp_in"), samples=names)
        estimator = Random(granularity=granularity, control=control)
        values = token_weights(estimator, view, estimator.config).values
        for value, kinds in zip(values, view.kinds, strict=True):
            assert (value >= 0).all() and (value[kinds == 0] == 0).all()
            torch.testing.assert_close(value.sum(1), torch.ones(len(value)))
        return by_sample(view, values)

    one = weigh(((9, 7), (6,)), [("a", "b"), ("c",)])
    other = weigh(((6, 9), (7,)), [("c", "a"), ("b",)])
    assert all(torch.allclose(one[name], other[name], rtol=1e-5, atol=0) for name in "abc")


def hash_of(name: str) -> int:
    return ord(name) * 7919


def test_modality_means_without_a_modality():
    kinds = torch.tensor([[VISION, VISION, PADDING]])
    torch.testing.assert_close(modality_means(torch.tensor([[1.0, 3.0, 9.0]]), kinds), torch.tensor([[2.0, 2.0, 0.0]]))
