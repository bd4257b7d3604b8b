"""Leave-one-out perturbation by brute force: one forward pass a token and sample, without batching or padding."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


@torch.no_grad()
def leave_one_out(f: Callable[[Tensor], Tensor], x: Tensor, x_q: Tensor) -> Tensor:
    """``[tokens]``: summed over tokens, the mean change over channels of ``f(x)`` when one token of ``x
    [tokens, channels]`` is replaced by its quantized value."""
    exact = f(x)
    scores = []
    for token in range(len(x)):
        changed = x.clone()
        changed[token] = x_q[token]
        scores.append((f(changed) - exact).abs().mean(-1).sum())
    return torch.stack(scores)
