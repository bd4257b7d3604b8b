"""Integrated gradients of the path scalar: by quadrature, or exactly where f is a single linear layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qig.config.schema import QigSensitivity
from qig.sensitivity.estimator import SiteView
from qig.sensitivity.path import linear_path, path_scalar
from qig.sensitivity.quadrature import rule


@dataclass(frozen=True)
class Attribution:
    """``values [batch, tokens, channels]`` per micro-batch, 0 at padding; relative completeness residual; nodes used.

    ``nodes`` is 0 for the closed form.
    """

    values: list[Tensor]
    residual: float
    nodes: int


def attribute(view: SiteView, config: QigSensitivity, references: list[Tensor], real: list[Tensor]) -> Attribution:
    """The closed form at linear sites, else quadrature with nodes doubled until the residual is below the tolerance."""
    plain = config.quantized_branch == "differentiable" and not config.quantized_activations
    if view.site.is_linear and config.closed_form and plain:
        return closed_form(view, config, references, real)
    nodes = config.nodes
    result = integrate(view, config, references, real, nodes)
    while result.residual > config.tolerance and 2 * nodes <= config.max_nodes:
        nodes *= 2
        result = integrate(view, config, references, real, nodes)
    return result


def integrate(
    view: SiteView, config: QigSensitivity, references: list[Tensor], real: list[Tensor], n: int
) -> Attribution:
    """``(x - x') * sum_i weight_i dG/dx(x' + node_i (x - x'))`` with the configured rule of n nodes.

    Samples of a micro-batch do not interact, so that one backward pass serves all of them.
    """
    nodes, weights = rule(config.quadrature, n)
    attributions, changes = [], []
    for call, reference, mask in zip(view.calls, references, real, strict=True):
        start = reference.to(torch.promote_types(reference.dtype, torch.float32))
        step = call.x.to(start.dtype) - start
        total = torch.zeros_like(step)
        for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
            with torch.enable_grad():
                x = (start + node * step).to(call.x.dtype).requires_grad_()
                value = path_scalar(view, config, call, x, reference, mask).sum()
                (gradient,) = torch.autograd.grad(value, x)
            total += weight * gradient
        attributions.append(step * total * mask.unsqueeze(-1))
        with torch.no_grad():
            ends = [path_scalar(view, config, call, x, reference, mask) for x in (call.x, reference)]
        changes.append(ends[0] - ends[1])
    return Attribution(attributions, completeness_residual(attributions, changes), n)


@torch.no_grad()
def closed_form(view: SiteView, config: QigSensitivity, references: list[Tensor], real: list[Tensor]) -> Attribution:
    """Exact at a linear site: per output channel the sign of ``p + a q`` changes at most once, at ``a = -p / q``.

    With ``m = integral_0^1 sign(p + a q) da``: ``QIG = (x - x') * (D^T m) / channels``.
    """
    attributions, changes = [], []
    for call, reference, mask in zip(view.calls, references, real, strict=True):
        p, q, matrix = linear_path(view, config, call.x, reference)
        root = torch.where(q == 0, 0, -p / q).clamp(0, 1)
        mean_sign = p.sign() * root + (p + q).sign() * (1 - root)
        gradient = config.factor * (mean_sign @ matrix) / matrix.shape[0]
        step = call.x.to(matrix.dtype) - reference.to(matrix.dtype)
        attributions.append(step * gradient * mask.unsqueeze(-1))
        changes.append(config.factor * (((p + q).abs() - p.abs()).mean(-1) * mask).sum(1))
    return Attribution(attributions, completeness_residual(attributions, changes), 0)


def completeness_residual(attributions: list[Tensor], changes: list[Tensor]) -> float:
    """``sum_n |sum_{t,h} QIG - (G(x) - G(x'))| / sum_n |G(x) - G(x')|`` over samples n; 0 if nothing changes."""
    pairs = zip(attributions, changes, strict=True)
    gap = sum(float((a.double().sum((1, 2)) - c.double()).abs().sum()) for a, c in pairs)
    size = sum(float(c.double().abs().sum()) for c in changes)
    return gap / size if size > 0 else 0.0
