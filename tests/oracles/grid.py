"""Integer grids group by group in NumPy, from the formulas of its docstrings; slow and independent of the package."""

from __future__ import annotations

import numpy as np

ONE = np.float32
TINY = np.float32(1e-5)


def asymmetric(weight: np.ndarray, bits: int, group: int | None):
    """Integers ``[out, in]``, scales and zero points ``[out, groups]``, and the dequantized weight, all by loops."""
    rows, columns = weight.shape
    group = group or columns
    top = 2**bits - 1
    integers = np.zeros((rows, columns), dtype=np.int64)
    scales = np.zeros((rows, columns // group), dtype=np.float32)
    zeros = np.zeros((rows, columns // group), dtype=np.int64)
    for i in range(rows):
        for g in range(columns // group):
            w = weight[i, g * group : (g + 1) * group].astype(np.float32)
            scale = max(w.max() - w.min(), TINY) / ONE(top)
            zero = int(min(max(np.rint(-w.min() / scale), 0), top))
            scales[i, g], zeros[i, g] = scale, zero
            q = np.rint(w / scale).astype(np.float64) + zero
            integers[i, g * group : (g + 1) * group] = np.clip(q, 0, top).astype(np.int64)
    difference = integers - np.repeat(zeros, group, axis=1)
    return integers, scales, zeros, difference.astype(np.float32) * np.repeat(scales, group, axis=1)


def symmetric(weight: np.ndarray, bits: int, group: int | None):
    """Integers, scales ``[out, groups]`` and the dequantized weight."""
    rows, columns = weight.shape
    group = group or columns
    integers = np.zeros((rows, columns), dtype=np.int64)
    scales = np.zeros((rows, columns // group), dtype=np.float32)
    for i in range(rows):
        for g in range(columns // group):
            w = weight[i, g * group : (g + 1) * group].astype(np.float32)
            scale = max(np.abs(w).max(), TINY) / ONE(2 ** (bits - 1) - 1)
            scales[i, g] = scale
            q = np.clip(np.rint(w / scale), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
            integers[i, g * group : (g + 1) * group] = q.astype(np.int64)
    return integers, scales, integers.astype(np.float32) * np.repeat(scales, group, axis=1)


def fake_weight(weight: np.ndarray, bits: int, is_symmetric: bool, group: int | None) -> np.ndarray:
    """The dequantized weight as float64: all groups at once, which test_grid compares with the loops."""
    w = weight.astype(np.float32).reshape(len(weight), -1, group or weight.shape[1])
    if is_symmetric:
        top = 2 ** (bits - 1) - 1
        scale = np.maximum(np.abs(w).max(-1, keepdims=True), TINY) / ONE(top)
        difference = np.clip(np.rint(w / scale), -top - 1, top)
    else:
        top, low = 2**bits - 1, w.min(-1, keepdims=True)
        scale = np.maximum(w.max(-1, keepdims=True) - low, TINY) / ONE(top)
        zero = np.clip(np.rint(-low / scale), 0, top)
        difference = np.clip(np.rint(w / scale).astype(np.float64) + zero, 0, top) - zero
    return (difference.astype(np.float32) * scale).reshape(weight.shape).astype(np.float64)


def fake_activation(x: np.ndarray, bits: int) -> np.ndarray:
    """Each token (last dimension) on its own symmetric grid."""
    flat = x.reshape(-1, x.shape[-1])
    return fake_weight(flat, bits, True, None).reshape(x.shape)
