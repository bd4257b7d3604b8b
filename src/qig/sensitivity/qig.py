"""Quantization-aware integrated gradients (arXiv 2603.17809, section 4 of the method).

``QIG(x) = (x - x') * integral_0^1 dG/dx_a da`` with ``x_a = x' + a (x - x')`` and
``G(x_a) = sum_t mean_c |f(x_a, w) - f(x_a, w_q)|``. Samples of a micro-batch do not interact, so that one backward
pass serves all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qig.blockwise.capture import Call
from qig.config.schema import QigSensitivity
from qig.data.tokens import TokenKind
from qig.quantization.grid import fake_quantize_activation
from qig.sensitivity.clipping import clip
from qig.sensitivity.estimator import Estimator, Scores, SiteView
from qig.sensitivity.quadrature import rule


class QuantizationAwareIntegratedGradients(Estimator):
    def __init__(self, config: QigSensitivity) -> None:
        super().__init__(config)
        self.needs_quantized_stream = config.reference == "quantized"

    def scores(self, view: SiteView) -> Scores:
        config = self.config
        real = [kinds != TokenKind.PADDING for kinds in view.kinds]
        references = self._references(view)
        if all(torch.equal(call.x, reference) for call, reference in zip(view.calls, references, strict=True)):
            return Scores([mask.float() for mask in real], fallback="the reference equals the input")
        if view.site.is_linear and config.closed_form:
            attributions, residual, nodes = *_closed_form(view, references, real), 0
        else:
            nodes = config.nodes
            attributions, residual = _integrated(view, references, real, config.quadrature, nodes)
            while residual > config.tolerance and 2 * nodes <= config.max_nodes:
                nodes *= 2
                attributions, residual = _integrated(view, references, real, config.quadrature, nodes)
        values = [self._token_scores(a, mask) for a, mask in zip(attributions, real, strict=True)]
        return Scores(values, completeness=residual, nodes=nodes)

    def _references(self, view: SiteView) -> list[Tensor]:
        if self.config.reference == "zero":
            return [torch.zeros_like(call.x) for call in view.calls]
        bits = view.setting.activation_bits
        found = [call.x for call in view.quantized_calls]
        return found if bits is None else [fake_quantize_activation(x, bits) for x in found]

    def _token_scores(self, attribution: Tensor, real: Tensor) -> Tensor:
        signed = self.config.score == "signed_sum"
        scores = attribution.sum(-1) if signed else attribution.abs().mean(-1)
        if self.config.clip == "iqr":
            scores = clip(scores, real, self.config.clip_factor)
        return scores.clamp(min=0)  # weights are not negative; only the signed sum can be


def path_error(view: SiteView, call: Call, x: Tensor, real: Tensor) -> Tensor:
    """``G`` of each sample at hidden states ``x [batch, tokens, channels]``: ``[batch]`` float32; padding excluded."""
    exact = call(view.f, x)
    with view.quantized():
        quantized = call(view.f, x)
    return ((exact - quantized).abs().float().mean(-1) * real).sum(1)


def _integrated(
    view: SiteView, references: list[Tensor], real: list[Tensor], name: str, n: int
) -> tuple[list[Tensor], float]:
    """Attributions ``[batch, tokens, channels]`` by quadrature with n nodes, and the completeness residual."""
    nodes, weights = rule(name, n)
    attributions, changes = [], []
    for call, reference, mask in zip(view.calls, references, real, strict=True):
        step = call.x - reference
        total = torch.zeros_like(step, dtype=torch.promote_types(step.dtype, torch.float32))
        for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
            with torch.enable_grad():
                x = (reference + node * step).requires_grad_()
                (gradient,) = torch.autograd.grad(path_error(view, call, x, mask).sum(), x)
            total += weight * gradient
        attributions.append(step * total * mask.unsqueeze(-1))
        with torch.no_grad():
            changes.append(path_error(view, call, call.x, mask) - path_error(view, call, reference, mask))
    return attributions, completeness_residual(attributions, changes)


@torch.no_grad()
def _closed_form(view: SiteView, references: list[Tensor], real: list[Tensor]) -> tuple[list[Tensor], float]:
    """The exact integral at a linear site: per output channel the sign of ``p + a q`` changes at most once.

    With D = W - W_q, p = D x', q = D (x - x') and m = integral of sign(p + a q): QIG = (x - x') * (D^T m) / channels.
    """
    exact = view.f.weight
    with view.quantized():
        difference = (exact.float() - view.f.weight.float()).to(torch.promote_types(exact.dtype, torch.float32))
    channels = difference.shape[0]
    attributions, changes = [], []
    for call, reference, mask in zip(view.calls, references, real, strict=True):
        step = (call.x - reference).to(difference.dtype)
        p, q = reference.to(difference.dtype) @ difference.T, step @ difference.T
        root = torch.where(q == 0, 0, -p / q).clamp(0, 1)
        mean_sign = p.sign() * root + (p + q).sign() * (1 - root)
        attributions.append(step * (mean_sign @ difference) / channels * mask.unsqueeze(-1))
        changes.append((((p + q).abs() - p.abs()).mean(-1) * mask).sum(1))
    return attributions, completeness_residual(attributions, changes)


def completeness_residual(attributions: list[Tensor], changes: list[Tensor]) -> float:
    """``sum_n |sum_{t,h} QIG - (G(x) - G(x'))| / sum_n |G(x) - G(x')|`` over samples n; 0 if nothing changes."""
    gap = sum(
        float((a.double().sum((1, 2)) - c.double()).abs().sum()) for a, c in zip(attributions, changes, strict=True)
    )
    size = sum(float(c.double().abs().sum()) for c in changes)
    return gap / size if size > 0 else 0.0
