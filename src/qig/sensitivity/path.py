"""The scalar G along the path from the reference to the input, and its gradient (QIG paper, Table 4: targets).

``G(x_a) = sum_t mean_c |.|_{t,c}`` over real tokens at ``x_a = x' + a (x - x')``; ``target``: ``error`` is
``f(x, w) - f(x, w_q)``, ``output`` is ``f(x, w)``, ``error_vs_reference`` is ``f(x, w) - f(x', w)``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from qig.blockwise.site import SiteView
from qig.config.schema import QigSensitivity
from qig.quantization.linear import Known, substituted


class _Known(Known):
    """A linear that reads x, along the path: its output ``W x' + b + a W (x - x')`` is affine in a.

    Two products serve all nodes, and one takes the gradients of all nodes back to x.
    """

    def __init__(self, linear: nn.Module, start: Tensor, step: Tensor) -> None:
        super().__init__(functional.linear(start, linear.weight, linear.bias).to(step.dtype))
        self.weight = linear.weight
        self.start = self.output
        self.step = functional.linear(step.to(linear.weight.dtype), linear.weight).to(step.dtype)

    def rest(self) -> None:
        """Set the output to that at x', which is a single row where x' is zero."""
        self.output = self.start.to(self.weight.dtype)

    def move(self, a: float) -> Tensor:
        """Set the output to that at ``x_a``; returns it, as a leaf to be differentiated."""
        self.output = torch.add(self.start, self.step, alpha=a).to(self.weight.dtype).requires_grad_()
        return self.output


class Path:
    """One micro-batch's path from x' to x through the inspected module f of a site.

    Args:
        index: number of the micro-batch.
        reference: x', ``[batch, tokens, channels]``; ``None`` is zero.
        real: ``[batch, tokens]``, False at padding.
    """

    def __init__(
        self, view: SiteView, config: QigSensitivity, index: int, reference: Tensor | None, real: Tensor
    ) -> None:
        self.view, self.config, self.index, self.real = view, config, index, real
        self.call = view.calls[index]
        x = self.call.x
        self.dtype = x.dtype
        wide = torch.promote_types(x.dtype, torch.float32)
        self.start = torch.zeros_like(x[:1, :1], dtype=wide) if reference is None else reference.to(wide)
        self.step = x.to(wide) - self.start
        self.frozen = config.target == "error" and config.quantized_branch == "constant"
        with torch.no_grad():
            self.branches = [self._known({})]
            if config.target == "error":
                quantized = view.quantized_linears(config.quantized_activations)
                known = not (config.quantized_activations or self.frozen)
                self.branches.append(self._known(quantized) if known else quantized)
            self.origin = None
            if config.target == "error_vs_reference":
                self._move(0)
                self.origin = self._output(0, self.point(0))

    def _known(self, replacements: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
        """The replacements, and for every linear of f that reads x what it gives along the path."""
        block, start = self.view.block, self.start.to(self.dtype)
        linears = {name: replacements.get(name) or block.get_submodule(name) for name in self.view.readers}
        return {**replacements, **{name: _Known(linear, start, self.step) for name, linear in linears.items()}}

    def point(self, a: float) -> Tensor:
        """x_a in f's own data type."""
        return torch.add(self.start, self.step, alpha=a).to(self.dtype)

    def _output(self, branch: int, x: Tensor) -> Tensor:
        with substituted(self.view.block, self.branches[branch]):
            return self.call(self.view.f, x)

    def _scalar(self, x: Tensor, exact: Tensor | None = None) -> Tensor:
        """G, ``[batch]`` in float32, with the known linears where they are; ``exact``: f(x, w), if that is there."""
        difference = self._output(0, x) if exact is None else exact
        if self.config.target == "error":
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
                quantized = self._output(1, x)
            difference = difference - quantized
        elif self.origin is not None:
            difference = difference - self.origin
        return self.config.factor * torch.where(self.real, difference.abs().float().mean(-1), 0).sum(1)

    def _all_known(self) -> list[_Known]:
        return [module for branch in self.branches for module in branch.values() if isinstance(module, _Known)]

    def _move(self, a: float) -> list[Tensor]:
        """The outputs of all known linears at x_a, where they now are."""
        return [module.move(a) for module in self._all_known()]

    @torch.no_grad()
    def change(self) -> Tensor:
        """``G(x) - G(x')`` of each sample, ``[batch]``."""
        self._move(1)
        x = self.point(1)
        exact = self._output(0, x)
        if self.dtype.itemsize > 2:  # in 16 bits a known output has been rounded more often than the layer's own
            self.view.outputs.note(self.index, exact)  # the search asks for it, too
        end = self._scalar(x, exact)
        # At zero all tokens are alike: one stands for all where f treats each by itself.
        one_for_all = self.start.shape != self.step.shape and not self.view.site.mixes_tokens
        if not one_for_all:
            self._move(0)
            return end - self._scalar(self.point(0))
        for known in self._all_known():
            known.rest()
        return end - self._scalar(self.start.to(self.dtype))

    def gradient(self, nodes: Tensor, weights: Tensor) -> Tensor:
        """``sum_i weight_i dG/dx(x_{node_i})``, ``[batch, tokens, channels]`` in at least float32.

        Samples of a micro-batch do not interact, so that one backward pass serves all of them.
        """
        known = self._all_known()
        totals = [torch.zeros_like(self.step), *(torch.zeros_like(module.step) for module in known)]
        for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
            with torch.enable_grad():
                leaves = [self.point(node).requires_grad_(), *self._move(node)]
                value = self._scalar(leaves[0]).sum()
                gradients = torch.autograd.grad(value, leaves, allow_unused=True)
            for total, gradient in zip(totals, gradients, strict=True):
                if gradient is not None:  # f reads x through its linears alone, as a rule
                    total.add_(gradient, alpha=weight)
        for total, module in zip(totals[1:], known, strict=True):
            totals[0] += total.to(module.weight.dtype) @ module.weight
        return totals[0]


def linear_path(
    view: SiteView, config: QigSensitivity, x: Tensor, reference: Tensor | None
) -> tuple[Tensor | None, Tensor, Tensor]:
    """A linear site's difference along the path is ``p + a q``: p, q ``[batch, tokens, out]`` and its matrix D.

    Returns:
        ``p`` (``None`` where it is zero), ``q`` and ``D [out, in]``, such that the gradient of ``|p + a q|`` with
        respect to x is ``D^T sign``.
    """
    weight, bias = view.f.weight, view.f.bias
    dtype = torch.promote_types(weight.dtype, torch.float32)
    matrix = weight.to(dtype)
    if config.target == "error":
        matrix = matrix - view.quantized_linears(False)[view.site.inspected].weight.to(dtype)
    start = None if reference is None else reference.to(dtype)
    q = (x.to(dtype) if start is None else x.to(dtype) - start) @ matrix.T
    p = None if config.target == "error_vs_reference" or start is None else start @ matrix.T
    if config.target == "output" and bias is not None:
        p = bias.to(dtype).expand_as(q) if p is None else p + bias.to(dtype)
    return p, q, matrix
