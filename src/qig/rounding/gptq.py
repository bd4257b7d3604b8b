"""GPTQ (arXiv 2210.17323) and GPTAQ (arXiv 2504.02692): columns are rounded one by one, the rest makes up for it.

Pure functions of a weight and second moments of its inputs; where those come from, and the token weights in them,
is the caller's affair.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qig.errors import QigError
from qig.finite import refuse_non_finite
from qig.quantization.grid import QuantizedWeight, WeightGrid, nearest, weight_parameters


def gptq(
    weight: Tensor,
    hessian: Tensor,
    grid: WeightGrid,
    *,
    damping: float,
    block: int,
    order_by_activation: bool,
    static_groups: bool,
    asymmetry: Tensor | None = None,
) -> QuantizedWeight:
    """Integers of ``weight [out, in]`` that keep ``W X`` close, column after column.

    Args:
        hessian: ``[in, in]``, ``sum_t lambda_t x_t x_t^T`` up to a factor.
        damping: share of the mean diagonal that is added to the diagonal.
        block: columns whose updates to the later columns are applied together; no effect on the result but speed.
        order_by_activation: columns in order of falling diagonal instead of their own order.
        static_groups: scales and zero points from the original weights instead of the weights at their turn.
        asymmetry: ``[in, in]``, ``sum_t lambda_t (x~_t - x_t) x_t^T`` with x~ of the exact and x of the quantized
            stream (GPTAQ); ``None`` for GPTQ.

    Raises:
        ValueError: groups that are not static in an order of their own cannot be packed.
        NonFiniteError: the weight, the moments or what rounding made of them are not numbers.
    """
    if order_by_activation and not static_groups and grid.group_size is not None:
        raise ValueError("ordering columns by activation needs static groups, or one scale a row (group_size null)")
    columns = weight.shape[1]
    size = grid.group_size or columns
    diagonal = hessian.diagonal()
    order = torch.argsort(diagonal, descending=True, stable=True) if order_by_activation else torch.arange(columns)
    order, columns_in_order = order.to(weight.device), order.tolist()
    if size % block and block % size:
        block = size  # a group renews its scale at its first column, and no update may be pending then
    scale, zero = weight_parameters(weight, grid)  # one per group; renewed at the group's turn unless static
    scale, zero = scale.T.contiguous(), None if zero is None else zero.T.contiguous()
    factor = inverse_factor(hessian[order][:, order].double(), damping)
    spread = _spread(asymmetry[order][:, order].double(), factor).float() if asymmetry is not None else None
    factor = factor.float()
    remaining = weight.float().T[order].contiguous()  # a row a column, in the order of their turns
    integers = torch.empty_like(remaining)
    for start in range(0, columns, block):
        stop = min(start + block, columns)
        errors, current = torch.empty_like(remaining[start:stop]), remaining[start:stop]
        for position in range(start, stop):
            column = columns_in_order[position]
            group = column // size
            if not static_groups and column % size == 0 and not order_by_activation:
                part = remaining[column : column + size].T
                fresh_scale, fresh_zero = weight_parameters(part, WeightGrid(grid.bits, grid.symmetric, None))
                scale[group] = fresh_scale[:, 0]
                if zero is not None:
                    zero[group] = fresh_zero[:, 0]
            w, behind = remaining[position], remaining[position + 1 : stop]
            offset = 0 if zero is None else zero[group]
            integers[position] = nearest(w / scale[group], grid.low, grid.high, offset)
            error = (w - (integers[position] - offset) * scale[group]) / factor[position, position]
            behind.addr_(factor[position, position + 1 : stop], error, alpha=-1)
            if spread is not None:
                behind.addr_(spread[position, position + 1 : stop], w)
            errors[position - start] = error
        remaining[stop:] -= factor[start:stop, stop:].T @ errors
        if spread is not None:
            remaining[stop:] += spread[start:stop, stop:].T @ current
    refuse_non_finite("rounded weights", integers)  # as an integer a NaN would look like any other
    integers[order] = integers.clone()  # back to the weight's own order
    integers, scale, zero = integers.T.contiguous(), scale.T.contiguous(), None if zero is None else zero.T.contiguous()
    dtype = torch.int8 if grid.symmetric else torch.uint8
    return QuantizedWeight(integers.to(dtype), scale, None if zero is None else zero.to(torch.uint8))


def inverse_factor(hessian: Tensor, damping: float) -> Tensor:
    """Upper Cholesky factor U of the damped inverse, ``H^-1 = U^T U``; for every k the trailing block of U gives the
    inverse of the trailing block of H. ``[in, in]`` float64.

    Inputs that never occur get the mean of the others on the diagonal, so that they are rounded to nearest. (The
    released codes put a 1 there, which enters the damping; token weights have no unit, so that it would mean nothing.)

    Raises:
        QigError: the damped Hessian, or its inverse, is not positive definite.
        NonFiniteError: the Hessian holds a value that is not a number.
    """
    refuse_non_finite("Hessian", hessian)
    hessian = hessian.clone()
    diagonal = hessian.diagonal()
    seen = diagonal != 0
    mean = diagonal[seen].mean() if bool(seen.any()) else torch.ones((), dtype=hessian.dtype, device=hessian.device)
    diagonal[~seen] = mean
    diagonal += damping * mean
    lower, failed = torch.linalg.cholesky_ex(hessian)
    if bool(failed):
        raise QigError(f"the Hessian of {len(hessian)} inputs is singular; raise rounding.damping (now {damping})")
    factor, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
    if bool(failed):
        raise QigError(
            f"the Hessian of {len(hessian)} inputs has no stable inverse; raise rounding.damping (now {damping})"
        )
    return factor


def _spread(asymmetry: Tensor, factor: Tensor) -> Tensor:
    """Row q holds ``A[q, F] H_FF^-1`` at the columns F behind q: how column q's asymmetry is passed on (GPTAQ)."""
    return (asymmetry @ factor.T).triu(1) @ factor
