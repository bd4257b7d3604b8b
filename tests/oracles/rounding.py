"""GPTQ and GPTAQ column by column, each compensation an explicit least-squares problem on the tokens; no Hessian
is inverted or factorised. Slow, NumPy, float64."""

from __future__ import annotations

import numpy as np

from oracles.grid import fake_weight

TINY = 1e-5


def parameters(weight: np.ndarray, bits: int, symmetric: bool) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point of each row of one group ``[out, size]``."""
    if symmetric:
        return np.maximum(np.abs(weight).max(1), TINY) / (2 ** (bits - 1) - 1), np.zeros(len(weight))
    top = 2**bits - 1
    scale = np.maximum(weight.max(1) - weight.min(1), TINY) / top
    return scale, np.clip(np.rint(-weight.min(1) / scale), 0, top)


def to_integers(column, scale, zero, bits: int, symmetric: bool) -> np.ndarray:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)
    return np.clip(np.rint(column / scale) + zero, low, high)


def column_by_column(
    weight: np.ndarray,
    x: np.ndarray,
    token_weights: np.ndarray,
    *,
    bits: int,
    symmetric: bool,
    group: int | None,
    damping: float,
    by_activation: bool = False,
    static: bool = False,
    exact: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Integers ``[out, in]``, scales and zero points ``[out, groups]``.

    Behind every column q the remaining columns F take up ``(w_q - Q(w_q)) x_q``, and in GPTAQ (``exact`` given) also
    ``w_q (x~_q - x_q)``, by least squares over the weighted tokens with ``damping * mean diag H`` as ridge.

    Args:
        x: ``[tokens, in]``; ``exact`` x~ of the same shape; ``token_weights [tokens]``.
    """
    rows, columns = weight.shape
    size = group or columns
    current = weight.astype(np.float64).copy()
    root = np.sqrt(token_weights)[:, None]
    tokens = root * x
    drift = np.zeros_like(tokens) if exact is None else root * (exact - x)
    energy = (tokens**2).sum(0)
    ridge = np.sqrt(damping * energy[energy > 0].mean())
    order = sorted(range(columns), key=lambda j: -energy[j]) if by_activation else list(range(columns))
    integers = np.zeros((rows, columns))
    scale, zero = np.zeros((rows, columns // size)), np.zeros((rows, columns // size))
    for g in range(columns // size):
        scale[:, g], zero[:, g] = parameters(current[:, g * size : (g + 1) * size], bits, symmetric)
    for turn, q in enumerate(order):
        g = q // size
        if not static and not by_activation and q % size == 0:
            scale[:, g], zero[:, g] = parameters(current[:, q : q + size], bits, symmetric)
        integers[:, q] = to_integers(current[:, q], scale[:, g], zero[:, g], bits, symmetric)
        lost = current[:, q] - (integers[:, q] - zero[:, g]) * scale[:, g]
        behind = order[turn + 1 :]
        if not behind:
            continue
        target = np.outer(tokens[:, q], lost) + np.outer(drift[:, q], current[:, q])
        design = np.vstack([tokens[:, behind], ridge * np.eye(len(behind))])
        solution = np.linalg.lstsq(design, np.vstack([target, np.zeros((len(behind), rows))]), rcond=None)[0]
        current[:, behind] += solution.T
    return integers, scale, zero


def output_error(weight, rounded, x, token_weights, exact=None) -> float:
    """``sum_t lambda_t |W x~_t - W^ x_t|^2``."""
    reference = x if exact is None else exact
    return float((token_weights[:, None] * (reference @ weight.T - x @ rounded.T) ** 2).sum())


def best_clip(weight: np.ndarray, x: np.ndarray, token_weights, bits, symmetric, group, points, max_shrink):
    """The weight ``[out, in]`` clipped group by group: the share of the largest magnitude with the least output error
    of the group alone, every candidate tried on the tokens.

    The candidates are float32: where both ends are clipped, the zero point of an asymmetric grid is a tie.
    """
    best = weight.copy()
    size = group or weight.shape[1]
    for row in range(weight.shape[0]):
        for start in range(0, weight.shape[1], size):
            part = slice(start, start + size)
            w, tried = weight[row, part], []
            for step in range(points):
                limit = np.abs(w).max() * np.float32(1 - max_shrink * step / points)
                clipped = np.clip(w, -limit, limit)
                rounded = fake_weight(clipped[None], bits, symmetric, None)[0]
                tried.append((float((token_weights * (x[:, part] @ (rounded - w)) ** 2).sum()), step, clipped))
            best[row, part] = min(tried, key=lambda t: t[:2])[2]
    return best
