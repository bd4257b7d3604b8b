"""GPTQ as Optimal Brain Surgeon states it, with the inverse of the remaining Hessian made anew for every column."""

from __future__ import annotations

import numpy as np

from oracles.grid import asymmetric, symmetric


def parameters(part: np.ndarray, bits: int, is_symmetric: bool):
    """Scale and zero point of each row of a group."""
    if is_symmetric:
        _, scale, _ = symmetric(part, bits, None)
        return scale[:, 0].astype(np.float64), np.zeros(len(part))
    _, scale, zero, _ = asymmetric(part, bits, None)
    return scale[:, 0].astype(np.float64), zero[:, 0].astype(np.float64)


def gptq(weight, hessian, bits: int, is_symmetric: bool, group: int | None, damping: float) -> np.ndarray:
    """The dequantized weight; groups take their grid from the weights at their turn."""
    w, h = weight.astype(np.float64).copy(), hessian.astype(np.float64).copy()
    columns = w.shape[1]
    h[np.diag_indices(columns)] += damping * np.mean(np.diag(hessian))
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_symmetric else (0, 2**bits - 1)
    result = np.zeros_like(w)
    for q in range(columns):
        if q % (group or columns) == 0:
            scale, zero = parameters(w[:, q : q + (group or columns)], bits, is_symmetric)
        integers = np.clip(np.rint(w[:, q] / scale) + zero, low, high)
        result[:, q] = (integers - zero) * scale
        inverse = np.linalg.inv(h[q:, q:])
        w[:, q + 1 :] -= np.outer((w[:, q] - result[:, q]) / inverse[0, 0], inverse[0, 1:])
    return result
