"""Integrated gradients of the path scalar: by quadrature, or exactly where f is a single linear layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qig.blockwise.site import SiteView
from qig.config.schema import QigSensitivity
from qig.sensitivity.path import Path, linear_path
from qig.sensitivity.quadrature import rule


@dataclass(frozen=True)
class Attribution:
    """Attributions per micro-batch, the relative completeness residual, and the nodes used (0: the closed form).

    ``values`` are ``[batch, tokens, channels]``, 0 at padding, or what ``reduce`` made of them: only that is kept.
    """

    values: list[Tensor]
    residual: float
    nodes: int


FAR = 4  # tolerances; at twice the nodes a smooth path's residual falls further than that
Reduce = Callable[[Tensor, Tensor], Tensor]


def everything(attribution: Tensor, real: Tensor) -> Tensor:
    return attribution


def attribute(
    view: SiteView,
    config: QigSensitivity,
    references: Sequence[Tensor | None],
    real: list[Tensor],
    reduce: Reduce = everything,
) -> Attribution:
    """The closed form at linear sites, else quadrature with more nodes until the residual is below the tolerance.

    Nodes are doubled, and doubled once more where the residual is still far from the tolerance, or says little: that of
    attention from a zero reference, whose errors cancel between tokens, so that four times ``nodes`` are the first
    there. In 16 bits they are doubled no more where that did not halve the residual, be it that of the first
    micro-batch: what is left is the rounding of f's own arithmetic, whatever the nodes.

    Args:
        references: x' per micro-batch, of the shape of the inputs; ``None`` is zero.
        real: ``[batch, tokens]`` per micro-batch, False at padding.
        reduce: makes of one micro-batch's attributions and its ``real`` what is to be kept of them.
    """
    plain = config.quantized_branch == "differentiable" and not config.quantized_activations
    if view.site.is_linear and config.closed_form and plain:
        return closed_form(view, config, references, real, reduce)
    parts: list[_Part] = []
    rounded, at_floor = view.calls[0].x.dtype.itemsize == 2, False
    cancels = view.site.mixes_tokens and references[0] is None
    nodes = min(4 * config.nodes, config.max_nodes) if cancels else config.nodes  # few nodes may seem to do by chance
    for reached in (1, len(view.calls)):  # what the first micro-batch needs the others do, as a rule
        parts += [_part(view, config, references, real, i, nodes, reduce) for i in range(len(parts), reached)]
        before = math.inf
        while (residual := _residual(parts)) > config.tolerance and 2 * nodes <= config.max_nodes and not at_floor:
            at_floor = rounded and residual > before / 2
            if at_floor:
                break
            before = residual
            far = (cancels or residual > FAR * config.tolerance) and 4 * nodes <= config.max_nodes
            nodes *= 4 if far else 2
            parts = [
                _part(view, config, references, real, i, nodes, reduce, part.change) for i, part in enumerate(parts)
            ]
    return Attribution([part.values for part in parts], residual, nodes)


def integrate(
    view: SiteView,
    config: QigSensitivity,
    references: Sequence[Tensor | None],
    real: list[Tensor],
    n: int,
    reduce: Reduce = everything,
) -> Attribution:
    """``(x - x') * sum_i weight_i dG/dx(x' + node_i (x - x'))`` with the configured rule of n nodes."""
    parts = [_part(view, config, references, real, i, n, reduce) for i in range(len(view.calls))]
    return Attribution([part.values for part in parts], _residual(parts), n)


@dataclass(frozen=True)
class _Part:
    """One micro-batch: what is kept of its attributions, and per sample their sum and ``G(x) - G(x')``, ``[batch]``."""

    values: Tensor
    total: Tensor
    change: Tensor


def _part(
    view: SiteView,
    config: QigSensitivity,
    references: Sequence[Tensor | None],
    real: list[Tensor],
    index: int,
    n: int,
    reduce: Reduce,
    change: Tensor | None = None,
) -> _Part:
    """Quadrature with n nodes over one micro-batch; ``change`` if it is known already."""
    path = Path(view, config, index, references[index], real[index])
    attribution = torch.where(real[index].unsqueeze(-1), path.step * path.gradient(*rule(config.quadrature, n)), 0)
    total = attribution.double().sum((1, 2))
    return _Part(reduce(attribution, real[index]), total, path.change() if change is None else change)


def _residual(parts: Sequence[_Part]) -> float:
    return completeness_residual([part.total for part in parts], [part.change for part in parts])


@torch.no_grad()
def closed_form(
    view: SiteView,
    config: QigSensitivity,
    references: Sequence[Tensor | None],
    real: list[Tensor],
    reduce: Reduce = everything,
) -> Attribution:
    """Exact at a linear site: per output channel the sign of ``p + a q`` changes at most once, at ``a = -p / q``.

    With ``m = integral_0^1 sign(p + a q) da``: ``QIG = (x - x') * (D^T m) / channels``.
    """
    kept, sums, changes = [], [], []
    for call, reference, mask in zip(view.calls, references, real, strict=True):
        end = call.x
        p, q, matrix = linear_path(view, config, end, reference)
        if p is None:
            mean_sign, change = q.sign(), q.abs()
        else:
            root = torch.where(q == 0, 0, -p / q).clamp(0, 1)
            mean_sign, change = p.sign() * root + (p + q).sign() * (1 - root), (p + q).abs() - p.abs()
        gradient = config.factor * (mean_sign @ matrix) / matrix.shape[0]
        step = end.to(matrix.dtype) if reference is None else end.to(matrix.dtype) - reference.to(matrix.dtype)
        attribution = torch.where(mask.unsqueeze(-1), step * gradient, 0)
        kept.append(reduce(attribution, mask))
        sums.append(attribution.double().sum((1, 2)))
        changes.append(config.factor * torch.where(mask, change.mean(-1), 0).sum(1))
    return Attribution(kept, completeness_residual(sums, changes), 0)


def completeness_residual(sums: list[Tensor], changes: list[Tensor]) -> float:
    """``sum_n |sum_{t,h} QIG - (G(x) - G(x'))| / sum_n |G(x) - G(x')|`` over samples n; 0 if nothing changes.

    Both are ``[batch]`` per micro-batch.
    """
    gap = sum(float((a - c.double()).abs().sum()) for a, c in zip(sums, changes, strict=True))
    size = sum(float(c.double().abs().sum()) for c in changes)
    return gap / size if size > 0 else 0.0
