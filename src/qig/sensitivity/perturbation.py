"""Leave-one-out perturbation: what f's output loses when a single token comes in quantized."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qig.about import About
from qig.blockwise.activations import each_tensor
from qig.blockwise.capture import Call
from qig.blockwise.site import SiteView
from qig.data.tokens import TokenKind
from qig.quantization.grid import fake_quantize_activation
from qig.quantization.linear import Known, substituted
from qig.sensitivity.estimator import Estimator, Scores


class Perturbation(Estimator):
    """``sum_{t'} mean_c |f(x) - f(x with token t replaced by its quantized value)|_{t',c}``, exact.

    The quantized value is the quantized stream's (where activations are quantized, also on their grid). Where f
    treats every token by itself one forward tells all tokens; attention costs one row of a batch per token, at most
    ``rows_per_batch`` rows together. The linears that read x give each row what they give every other, but at its
    token: two products serve all rows.
    """

    about = About(
        formula="sum_t' mean_c |f(x) - f(x with x_t replaced by its quantized value)|_{t',c}",
        cost=(
            "1 forward, and 1 more where f treats tokens singly; at attention 1 per token, "
            "`rows_per_batch` of them together"
        ),
        needs="the quantized stream",
        source="QIG's Table 1, arXiv 2603.17809",
    )
    needs_quantized_stream = True

    @torch.no_grad()
    def scores(self, view: SiteView) -> Scores:
        grid = view.setting.activations
        values = []
        for call, quantized, kinds in zip(view.calls, view.quantized_calls, view.kinds, strict=True):
            x_q = quantized.x if grid is None else fake_quantize_activation(quantized.x, grid)
            real = kinds != TokenKind.PADDING
            one_by_one = view.site.mixes_tokens
            values.append(self._mixed(view, call, x_q, real) if one_by_one else _pointwise(view, call, x_q))
        if all(bool((v == 0).all()) for v in values):
            return Scores([torch.ones_like(v) for v in values], fallback="the quantized stream equals the exact one")
        return Scores(values)

    def _mixed(self, view: SiteView, call: Call, x_q: Tensor, real: Tensor) -> Tensor:
        exact = _at_least_single(call(view.f))
        scores = torch.zeros(real.shape, dtype=exact.dtype, device=real.device)
        for row in range(len(real)):
            tokens = real[row].nonzero().flatten()
            kwargs = {name: _row(value, row, len(real)) for name, value in call.kwargs.items()}
            linears = {name: view.block.get_submodule(name) for name in view.readers}
            outputs = {name: (linear(call.x[row]), linear(x_q[row])) for name, linear in linears.items()}
            for chunk in tokens.split(self.config.rows_per_batch):
                x = _but_one(call.x[row], x_q[row], chunk)
                copies = Call(x, {name: _repeat(value, len(chunk)) for name, value in kwargs.items()})
                with substituted(view.block, {name: Known(_but_one(*y, chunk)) for name, y in outputs.items()}):
                    changed = copies(view.f)
                difference = (_at_least_single(changed) - exact[row]).abs().mean(-1) * real[row]
                scores[row, chunk] = difference.sum(1)
        return scores


def _but_one(exact: Tensor, changed: Tensor, chunk: Tensor) -> Tensor:
    """Copies of ``exact [tokens, channels]``, each with another token's row, ``chunk``, from ``changed``."""
    copies = exact.expand(len(chunk), *exact.shape).clone()
    copies[torch.arange(len(chunk)), chunk] = changed[chunk]
    return copies


def _pointwise(view: SiteView, call: Call, x_q: Tensor) -> Tensor:
    return (_at_least_single(call(view.f)) - _at_least_single(call(view.f, x_q))).abs().mean(-1)


def _at_least_single(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _row(value: Any, row: int, rows: int) -> Any:
    """Row ``row`` of every tensor that has one per sample (masks, cosines and sines)."""
    return each_tensor(lambda x: x[row : row + 1] if x.dim() > 1 and x.shape[0] == rows else x, value)


def _repeat(value: Any, times: int) -> Any:
    return each_tensor(lambda x: x.expand(times, *x.shape[1:]) if x.dim() > 1 and x.shape[0] == 1 else x, value)
