"""Integrated gradients of the quantization error by brute force, in float64, one sample at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from oracles import toy
from oracles.grid import fake_activation

Function = Callable[[Tensor, dict[str, Tensor]], Tensor]


def path_error(f: Function, weights: dict, quantized: dict, x: Tensor) -> Tensor:
    """``G`` of one sample ``x [.., tokens, channels]`` without padding: sum over tokens of the mean over channels, and
    over samples."""
    return (f(x, weights) - f(x, quantized)).abs().mean(-1).sum()


def by_midpoint(f: Function, weights: dict, quantized: dict, x: Tensor, reference: Tensor, nodes: int = 1024) -> Tensor:
    """``[tokens, channels]``: the mean of autograd's gradient at the middle of equal cells, times the step."""
    return midpoint(lambda points: path_error(f, weights, quantized, points), x, reference, nodes)


def midpoint(value: Callable[[Tensor], Tensor], x: Tensor, reference: Tensor, nodes: int) -> Tensor:
    """The same of any ``value`` of points ``[nodes, tokens, channels]``, none of which knows of another."""
    steps = ((torch.arange(nodes, dtype=x.dtype) + 0.5) / nodes)[:, None, None]
    points = (reference + steps * (x - reference)).requires_grad_()
    (gradients,) = torch.autograd.grad(value(points).sum(), points)
    return (x - reference) * gradients.mean(0)


def by_breakpoints(weight: Tensor, quantized: Tensor, x: Tensor, reference: Tensor) -> Tensor:
    """Exact for ``f(x) = W x``: between two sign changes of any output the gradient is constant, so every piece of the
    path between sorted sign changes is weighted by its length; ``[tokens, channels]``."""
    difference = weight - quantized
    cuts = {0.0, 1.0}
    for token in range(len(x)):
        for row in difference:
            start, end = float(row @ reference[token]), float(row @ x[token])
            if start * end < 0:
                cuts.add(start / (start - end))
    cuts = sorted(cuts)
    total = torch.zeros_like(x)
    for left, right in itertools.pairwise(cuts):
        point = (reference + (left + right) / 2 * (x - reference)).requires_grad_()
        error = (point @ difference.T).abs().mean(-1).sum()
        total += (right - left) * torch.autograd.grad(error, point)[0]
    return (x - reference) * total


def with_integer_activations(site: str, x, weights):
    """The inspected function where the input of each of its linears is rounded to 8 bits per token, by hand."""

    def rounded(y):
        return torch.from_numpy(fake_activation(y.numpy(), 8))

    if len(toy.CONSUMERS[site]) == 1:
        return toy.apply(rounded(x), weights, toy.CONSUMERS[site][0])
    if site == "mlp_in":
        gate, up = (toy.apply(rounded(x), weights, name) for name in ("gate", "up"))
        return toy.apply(rounded(gate / (1 + torch.exp(-gate)) * up), weights, "down")
    inner = toy.attention(rounded(x), {**weights, "o": torch.eye(8, dtype=x.dtype)})  # what o_proj is given
    return toy.apply(rounded(inner), weights, "o")


def clipped(scores: Tensor, factor: float = 1.5) -> Tensor:
    """One sample's scores between the whiskers of NumPy's box plot."""
    import numpy as np

    low, high = np.percentile(scores.double().numpy(), [25, 75])
    return scores.clamp(low - factor * (high - low), high + factor * (high - low))
