"""Nodes and weights of quadrature rules on [0, 1]; pure functions."""

from __future__ import annotations

import numpy as np

from qig.errors import ConfigError, choices


def gauss_legendre(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact for polynomials of degree 2n - 1."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return (nodes + 1) / 2, weights / 2


def midpoint(n: int) -> tuple[np.ndarray, np.ndarray]:
    """n equal cells, one node in the middle of each."""
    return (np.arange(n) + 0.5) / n, np.full(n, 1 / n)


def riemann_left(n: int) -> tuple[np.ndarray, np.ndarray]:
    """The released code's rule: n points from 0 to 1, both ends included, each weighted 1/n."""
    return np.linspace(0, 1, n), np.full(n, 1 / n)


RULES = {"gauss_legendre": gauss_legendre, "midpoint": midpoint, "riemann_left": riemann_left}


def rule(name: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """``(nodes, weights)``, each ``[n]`` float64.

    Raises:
        ConfigError: unknown rule, or fewer than one node.
    """
    if name not in RULES:
        raise ConfigError(choices(name, RULES, "quadrature rule"))
    if n < 1:
        raise ConfigError(f"a quadrature rule needs at least one node, got {n}")
    return RULES[name](n)
