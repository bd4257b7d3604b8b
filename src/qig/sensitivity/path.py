"""The scalar G that is integrated along the path from the reference to the input (METHOD section 4, Table 4)."""

from __future__ import annotations

import torch
from torch import Tensor

from qig.blockwise.capture import Call
from qig.config.schema import QigSensitivity
from qig.sensitivity.estimator import SiteView


def path_scalar(
    view: SiteView, config: QigSensitivity, call: Call, x: Tensor, reference: Tensor, real: Tensor
) -> Tensor:
    """``G`` of each sample at hidden states x, ``sum_t mean_c |.|_{t,c}`` over real tokens: ``[batch]`` float32.

    ``target``: ``error`` is ``f(x, w) - f(x, w_q)``, ``output`` is ``f(x, w)``, ``error_vs_reference`` is
    ``f(x, w) - f(x', w)``.

    Args:
        x: ``[batch, tokens, channels]``, a point of the path.
        reference: x', of the same shape.
        real: ``[batch, tokens]``, False at padding.
    """
    difference = call(view.f, x)
    if config.target == "error":
        difference = difference - _quantized_output(view, config, call, x)
    elif config.target == "error_vs_reference":
        with torch.no_grad():
            start = call(view.f, reference)
        difference = difference - start
    return config.factor * (difference.abs().float().mean(-1) * real).sum(1)


def _quantized_output(view: SiteView, config: QigSensitivity, call: Call, x: Tensor) -> Tensor:
    differentiable = config.quantized_branch == "differentiable" and torch.is_grad_enabled()
    with torch.set_grad_enabled(differentiable), view.quantized(config.quantized_activations):
        return call(view.f, x)


def linear_path(view: SiteView, config: QigSensitivity, x: Tensor, reference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A linear site's difference along the path is ``p + a q``: p, q ``[batch, tokens, out]`` and its matrix D.

    Returns:
        ``p``, ``q`` and ``D [out, in]``, such that the gradient of ``|p + a q|`` with respect to x is ``D^T sign``.
    """
    weight, bias = view.f.weight, view.f.bias
    dtype = torch.promote_types(weight.dtype, torch.float32)
    matrix = weight.to(dtype)
    if config.target == "error":
        with view.quantized(False):
            matrix = matrix - view.f.weight.to(dtype)
    start = reference.to(dtype)
    step = x.to(dtype) - start
    q = step @ matrix.T
    p = torch.zeros_like(q) if config.target == "error_vs_reference" else start @ matrix.T
    if config.target == "output" and bias is not None:
        p = p + bias.to(dtype)
    return p, q, matrix
