"""Quadrature on [0, 1]: exactness, sums, and the released code's rule as it is documented."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qig.errors import ConfigError
from qig.sensitivity.quadrature import RULES, rule


@pytest.mark.parametrize("n", range(1, 17))
def test_gauss_legendre_is_exact_up_to_degree_2n_minus_1_and_not_beyond(n):
    nodes, weights = rule("gauss_legendre", n)
    for degree in range(2 * n):
        assert weights @ nodes**degree == pytest.approx(1 / (degree + 1), abs=1e-13)
    if n < 6:  # beyond it the error is below float64's rounding
        assert weights @ nodes ** (2 * n) != pytest.approx(1 / (2 * n + 1), abs=1e-9)


@given(st.sampled_from(sorted(RULES)), st.integers(1, 200))
def test_weights_sum_to_one_and_nodes_lie_in_the_interval(name, n):
    nodes, weights = rule(name, n)
    assert len(nodes) == len(weights) == n
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert ((nodes >= 0) & (nodes <= 1)).all() and (weights > 0).all()
    assert (np.diff(nodes) > 0).all()


def test_left_rule_has_both_ends_each_weighted_one_nth():
    nodes, weights = rule("riemann_left", 5)
    np.testing.assert_allclose(nodes, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(weights, [0.2] * 5)


def test_midpoint_nodes_are_the_middles_of_equal_cells():
    np.testing.assert_allclose(rule("midpoint", 4)[0], [0.125, 0.375, 0.625, 0.875])


def test_left_rule_misses_a_line_through_zero_symmetrically_but_a_parabola_by_one_over_n():
    nodes, weights = rule("riemann_left", 32)
    assert weights @ nodes == pytest.approx(0.5)
    assert weights @ nodes**2 - 1 / 3 == pytest.approx(1 / (6 * 31), rel=1e-6)  # sum i^2/(n (n-1)^2) - 1/3


def test_unknown_rule_and_no_nodes():
    with pytest.raises(ConfigError, match=r"unknown quadrature rule 'simpson'.*midpoint"):
        rule("simpson", 4)
    with pytest.raises(ConfigError, match="at least one node, got 0"):
        rule("midpoint", 0)
