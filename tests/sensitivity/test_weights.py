"""From scores to lambda: normalisation, granularity, clipping bounds, and what happens without scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from qig.config.schema import ModalityGradientSensitivity, UniformSensitivity
from qig.data.tokens import TokenKind
from qig.errors import QigError
from qig.sensitivity.clipping import clip, iqr_bounds
from qig.sensitivity.estimator import Estimator, Scores
from qig.sensitivity.granularity import modality_means
from qig.sensitivity.modality_gradient import ModalityGradient
from qig.sensitivity.uniform import Uniform
from qig.sensitivity.weights import normalized, token_weights

VISION, PROMPT, ANSWER, SPECIAL = TokenKind.VISION, TokenKind.PROMPT, TokenKind.ANSWER, TokenKind.SPECIAL


class Fixed(Estimator):
    """Gives the scores that it was made with."""

    def __init__(self, values, granularity="token_special", normalize="sample"):
        super().__init__(UniformSensitivity("fixed", granularity, normalize, "none", 0))
        self.values = values

    def scores(self, view):
        return Scores(self.values)


def weights_of(estimator, view):
    return token_weights(estimator, view, estimator.config)


@pytest.mark.parametrize("normalize", ["sample", "corpus"])
@pytest.mark.parametrize("granularity", ["token", "token_special", "modality"])
def test_weights_sum_to_one(toys, granularity, normalize):
    view = toys(lengths=((5, 5), (9, 4))).view("mlp_in")
    values = [torch.rand(kinds.shape, generator=torch.Generator().manual_seed(1)) for kinds in view.kinds]
    found = weights_of(Fixed(values, granularity, normalize), view).values
    sums = torch.cat([v.sum(1) for v in found])
    if normalize == "sample":
        torch.testing.assert_close(sums, torch.ones(4))
    else:
        assert float(sums.mean()) == pytest.approx(1, rel=1e-6) and float(sums.std()) > 0.01
    for value, kinds in zip(found, view.kinds, strict=True):
        assert value.dtype == torch.float32
        assert (value[kinds == 0] == 0).all() and (value >= 0).all()


def test_corpus_normalisation_keeps_the_ratios_between_samples(toys):
    view = toys(lengths=((5, 5), (9, 4))).view("mlp_in")
    generator = torch.Generator().manual_seed(2)
    values = [torch.rand(kinds.shape, generator=generator) * (kinds != 0) for kinds in view.kinds]
    found = weights_of(Fixed(values, normalize="corpus"), view).values
    ratios = torch.cat([(f[v > 0] / v[v > 0]) for f, v in zip(found, values, strict=True)])
    torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios))


def test_uniform(toys):
    view = toys(lengths=((5, 3),)).view("mlp_in")
    found = weights_of(Uniform(UniformSensitivity("uniform", "token_special", "sample", "none", 0)), view).values[0]
    torch.testing.assert_close(found, torch.tensor([[1 / 5] * 5, [1 / 3] * 3 + [0, 0]]))


def test_modality_means_by_hand():
    kinds = torch.tensor([[SPECIAL, VISION, VISION, PROMPT, ANSWER, 0], [PROMPT, ANSWER, 0, 0, 0, 0]])
    values = torch.tensor([[1.0, 2, 6, 3, 8, 99], [4, 6, 99, 99, 99, 99]])
    expected = torch.tensor([[4.0, 4, 4, 4, 4, 0], [5, 5, 0, 0, 0, 0]])
    torch.testing.assert_close(modality_means(values, kinds), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: [v[0] - 0.5], r"sensitivity=fixed, block 0, mlp_in: a token's score is -0\.\d+; expected 0 or more"),
        (lambda v: [v[0][:, :1]], r"shapes \[\(2, 1\)\]; expected \[batch, tokens\] .*\[\(2, 5\)\]"),
        (lambda v: [v[0].flatten()], r"shapes \[\(10,\)\]"),
        (lambda v: [*v, *v], r"shapes \[\(2, 5\), \(2, 5\)\]; expected .*: \[\(2, 5\)\]"),
    ],
)
def test_scores_that_are_none_are_refused(toys, change, message):
    """A score a sample would be broadcast over its tokens."""
    view = toys(lengths=((5, 3),)).view("mlp_in")
    values = [torch.rand(2, 5, generator=torch.Generator().manual_seed(1))]
    with pytest.raises(QigError, match=message):
        weights_of(Fixed(change(values)), view)


def test_a_list_is_no_scores(toys):
    class Listed(Fixed):
        def scores(self, view):
            return self.values

    with pytest.raises(QigError, match="sensitivity=fixed, block 0, mlp_in: got a list of scores, expected Scores"):
        weights_of(Listed([torch.ones(2, 5)]), toys(lengths=((5, 3),)).view("mlp_in"))


def test_what_stands_at_padding_may_be_negative(toys):
    view = toys(lengths=((5, 3),)).view("mlp_in")
    values = torch.ones(2, 5)
    values[1, 3:] = -1
    assert (weights_of(Fixed([values]), view).values[0][1, 3:] == 0).all()


@pytest.mark.parametrize("normalize", ["sample", "corpus"])
def test_samples_without_scores_weigh_as_much_as_the_others_and_the_record_says_so(toys, normalize):
    view = toys(lengths=((5, 3), (4,))).view("mlp_in")
    values = [torch.full((2, 5), 1e-6), torch.full((1, 4), 3e-6)]
    values[0][1] = 0
    found = weights_of(Fixed(values, normalize=normalize), view)
    assert found.scores.fallback == "1 samples without any score"
    assert torch.equal(found.values[0][1, :3], found.values[0][1, :1].expand(3)) and found.values[0][1, 0] > 0
    total = float(found.values[0][1].sum())
    assert total == pytest.approx(1, rel=1e-6)  # on the corpus scale, too: not a million times its neighbours' share


def test_a_sample_without_scores_gives_the_chat_templates_tokens_none_where_the_granularity_does(toys):
    view = toys(lengths=((5, 3),)).view("mlp_in")
    found = weights_of(Fixed([torch.zeros(2, 5)], granularity="token"), view).values[0]
    expected = (view.kinds[0] != SPECIAL) & (view.kinds[0] != 0)
    assert (view.kinds[0] == SPECIAL).any()
    torch.testing.assert_close(found, expected / expected.sum(1, keepdim=True))
    view.kinds[0][1, :3] = SPECIAL  # nothing else to weigh
    found = weights_of(Fixed([torch.zeros(2, 5)], granularity="token"), view).values[0]
    torch.testing.assert_close(found[1], torch.tensor([1 / 3] * 3 + [0, 0]))


def test_scores_that_are_no_numbers_are_refused(toys):
    view = toys(lengths=((5, 3),)).view("mlp_in")
    values = torch.ones(2, 5)
    values[0, 2] = torch.nan
    with pytest.raises(QigError, match="block 0, mlp_in"):
        weights_of(Fixed([values]), view)
    values[0, 2], values[1, 4] = 1, torch.nan  # padding may hold anything
    assert torch.isfinite(weights_of(Fixed([values]), view).values[0]).all()


def test_modality_gradient_weighs_prompt_and_special_tokens_zero(toys):
    """MBQ: tokens that are neither vision nor answer weigh 0."""
    config = ModalityGradientSensitivity("modality_gradient", "modality", "corpus", "none", 0, "per_token")
    estimator = ModalityGradient(config)
    estimator.ratios = {"mlp.down_proj": torch.tensor([0.25])}
    estimator.counts = {VISION: 6, ANSWER: 2}
    view = toys(lengths=((5, 5), (5, 4))).view("mlp_in")
    for value, kinds in zip(weights_of(estimator, view).values, view.kinds, strict=True):
        assert (value[(kinds == PROMPT) | (kinds == SPECIAL) | (kinds == 0)] == 0).all()
        answer, vision = value[kinds == ANSWER], value[kinds == VISION]
        torch.testing.assert_close(vision, (0.25 * answer[0]).expand_as(vision))


@given(arrays.arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e3, 1e3)), st.sampled_from([0.0, 0.5, 1.5]))
def test_clipping_bounds_are_those_of_numpy(scores, factor):
    low, high = np.percentile(scores, [25, 75])
    spread = factor * (high - low)
    found = [float(bound) for bound in iqr_bounds(torch.from_numpy(scores), factor)]
    assert found == pytest.approx([low - spread, high + spread], rel=1e-5, abs=1e-3)


def test_clipping_looks_at_real_tokens_only():
    scores = torch.tensor([[1.0, 2, 3, 4, 100, 1e6, -1e6]])
    real = torch.tensor([[True] * 5 + [False] * 2])
    found = clip(scores, real, "iqr", 1.5)
    low, high = np.percentile([1, 2, 3, 4, 100], [25, 75])
    assert found[0, :5].tolist() == pytest.approx([1, 2, 3, 4, high + 1.5 * (high - low)])
    assert torch.equal(found[0, 5:], scores[0, 5:])


def test_normalized_refuses_nothing_and_changes_no_ratio():
    values = [torch.tensor([[1.0, 3.0], [2.0, 2.0]])]
    torch.testing.assert_close(normalized(values, "sample")[0], torch.tensor([[0.25, 0.75], [0.5, 0.5]]))
    torch.testing.assert_close(normalized(values, "corpus")[0], values[0] / 4)
