"""QIG as its release runs it, departures from the paper's formulas included; sample by sample, without padding.

It reads the model's modules and nothing else of the package: grids, attribution, search, folding and both streams are
its own. Slow; a few samples and blocks. Scales are float32, as integers are rounded in float32: in float64 other
weights would fall on the other side of a half.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from oracles.grid import fake_activation, fake_weight

VISION, ANSWER = 2, 3
NODES, WARM_UP = 32, 5
EXPONENTS = [i / 20 for i in range(20)]
# Grouped-query attention: attn_out is skipped. Inspected module, linears that take the scale, what takes its inverse.
SITES = {
    "attn_in": ("self_attn", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "input_layernorm"),
    "mlp_in": ("mlp", ("mlp.gate_proj", "mlp.up_proj"), "post_attention_layernorm"),
    "mlp_out": ("mlp.down_proj", ("mlp.down_proj",), "mlp.up_proj"),
}


class Release:
    """``bits``, ``symmetric`` and ``group`` of the weights; ``activation_bits`` or ``None``."""

    def __init__(self, blocks, bits: int, symmetric: bool, group: int | None, activation_bits: int | None) -> None:
        self.blocks = blocks
        self.grid = (bits, symmetric, group)
        self.activation_bits = activation_bits
        self.searched = 0

    @torch.no_grad()
    def run(self, model, batches) -> dict[tuple[int, str], dict]:
        """``batches``: one unpadded sample each. Per block and site: token weights per sample, losses, exponent."""
        samples = [self._record(model, batch) for batch in batches]
        streams = [sample["block", 0][0] for sample in samples]  # x_q begins with the same embeddings
        found = {}
        for index, original in enumerate(self.blocks):
            folded = copy.deepcopy(original)
            for site in SITES:
                found[index, site] = self._site(index, site, folded, samples, streams)
            quantized = self._all_quantized(folded)
            with self._integer_activations(quantized):
                streams = [
                    first(quantized(x_q, **sample["block", index][1]))
                    for x_q, sample in zip(streams, samples, strict=True)
                ]
        return found

    def _record(self, model, batch) -> dict:
        """Inputs and other arguments of every block and inspected module in one forward pass of the original model."""
        seen = {"kinds": batch.kinds[0]}

        def keep(key):
            def hook(_module, args, kwargs):
                kwargs = dict(kwargs)
                seen[key] = (args[0] if args else kwargs.pop("hidden_states"), kwargs)

            return hook

        handles = []
        for index, block in enumerate(self.blocks):
            handles.append(block.register_forward_pre_hook(keep(("block", index)), with_kwargs=True))
            for site, (module, *_) in SITES.items():
                inner = block.get_submodule(module)
                handles.append(inner.register_forward_pre_hook(keep((site, index)), with_kwargs=True))
        model(**batch.inputs, use_cache=False)
        for handle in handles:
            handle.remove()
        return seen

    def _site(self, index: int, site: str, folded: nn.Module, samples: list, streams: list[Tensor]) -> dict:
        module, consumers, producer = SITES[site]
        f = folded.get_submodule(module)
        exact = [sample[site, index] for sample in samples]
        drifted = self._drifted(index, site, folded, samples, streams) if self.activation_bits else None
        weights = []
        for number, ((x, kwargs), sample) in enumerate(zip(exact, samples, strict=True)):
            kinds = sample["kinds"]
            if self.activation_bits is None and self.searched < WARM_UP:
                scores = ((kinds == VISION) | (kinds == ANSWER)).double()
            else:
                reference = torch.zeros_like(x) if drifted is None else drifted[number]
                scores = self._scores(f, x, reference, kwargs)
            # At the first site x' = x and all is 0; the method falls back to uniform weights, the release to no scale.
            scores = scores if bool(scores.any()) else torch.ones_like(scores)
            weights.append(scores / scores.sum())
        self.searched += 1
        inputs = [x for x, _ in exact] if drifted is None else drifted
        losses, scale, exponent = self._search(f, module, consumers, inputs, [k for _, k in exact], weights)
        self._fold(folded, producer, consumers, scale)
        return {"weights": weights, "losses": losses, "exponent": exponent}

    def _drifted(self, index, site, folded, samples, streams) -> list[Tensor]:
        """x_q at a site: the block with the scales found so far folded in and all of its linears quantized."""
        quantized, inputs = self._all_quantized(folded), []
        inner = quantized.get_submodule(SITES[site][0])
        handle = inner.register_forward_pre_hook(
            lambda _module, args, kwargs: inputs.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        )
        with self._integer_activations(quantized, behind=inner if isinstance(inner, nn.Linear) else None):
            for x_q, sample in zip(streams, samples, strict=True):
                quantized(x_q, **sample["block", index][1])
        handle.remove()
        return inputs

    def _scores(self, f, x: Tensor, reference: Tensor, kwargs: dict) -> Tensor:
        """32 points with both ends, each weighted 1/32; W4A8: the quantized branch is a constant, times 1000."""
        quantized = self._all_quantized(f)
        nodes = torch.from_numpy(np.linspace(0, 1, NODES))[:, None, None]
        points = (reference + nodes * (x - reference)).requires_grad_()  # no point knows of another
        with torch.enable_grad():
            if self.activation_bits is None:
                error = first(f(points, **kwargs)) - first(quantized(points, **kwargs))
            else:
                with torch.no_grad(), self._integer_activations(quantized):
                    constant = first(quantized(points.detach(), **kwargs))
                error = 1000 * (first(f(points, **kwargs)) - constant)
            (gradients,) = torch.autograd.grad(error.abs().mean(-1).sum(), points)
        scores = ((x - reference)[0] * gradients.mean(0)).abs().mean(-1)
        if self.activation_bits is not None:
            return scores  # the bounds are computed but not applied
        low, high = np.percentile(scores.numpy(), [25, 75])
        return scores.clamp(low - 1.5 * (high - low), high + 1.5 * (high - low))

    def _search(self, f, module, consumers, inputs, arguments, weights):
        """Absolute error of f's output; W4A8: f(x_q) is the target, x_q the input."""
        statistic = np.concatenate([x[0].abs().numpy() for x in inputs]).mean(0).astype(np.float32)
        exact = [first(f(x, **kwargs)) for x, kwargs in zip(inputs, arguments, strict=True)]
        losses, scales = [], []
        for r in EXPONENTS:
            # torch's powers and roots: NumPy's differ in the last digit, and a rounding here and there with it.
            s = (torch.from_numpy(statistic) ** r).clamp(min=1e-4)
            s = (s / (s.max() * s.min()).sqrt()).numpy()
            candidate = self._candidate(f, module, consumers, s)
            loss = 0.0
            with self._scaled_inputs(candidate, module, consumers, s):
                for x, kwargs, y, weight in zip(inputs, arguments, exact, weights, strict=True):
                    error = (y - first(candidate(x, **kwargs)))[0].abs().mean(-1)
                    loss += float((error * weight).sum())
            losses.append(loss)
            scales.append(s)
        best = int(np.argmin(losses))
        return losses, scales[best], EXPONENTS[best]

    def _candidate(self, f, module: str, consumers, s) -> nn.Module:
        candidate = copy.deepcopy(f)
        for name in consumers:
            linear = candidate.get_submodule(name.removeprefix(module).removeprefix("."))
            linear.weight.copy_(torch.from_numpy(fake_weight(linear.weight.numpy().astype(np.float32) * s, *self.grid)))
        return candidate

    @contextmanager
    def _scaled_inputs(self, candidate, module: str, consumers, s):
        """``Q_X(x / s)`` in front of every linear that has taken the scale."""
        divisor = torch.from_numpy(s)

        def hook(_module, args):
            x = args[0] / divisor
            return (x if self.activation_bits is None else self._rounded(x),)

        linears = [candidate.get_submodule(name.removeprefix(module).removeprefix(".")) for name in consumers]
        handles = [linear.register_forward_pre_hook(hook) for linear in linears]
        yield
        for handle in handles:
            handle.remove()

    @staticmethod
    def _fold(block, producer: str, consumers, s) -> None:
        divisor = torch.from_numpy(s)
        weight = block.get_submodule(producer).weight
        weight.copy_(weight.float() / (divisor if weight.dim() == 1 else divisor[:, None]))
        for name in consumers:
            weight = block.get_submodule(name).weight
            weight.copy_(weight.float() * divisor)

    def _all_quantized(self, module: nn.Module) -> nn.Module:
        result = copy.deepcopy(module)
        for linear in result.modules():
            if isinstance(linear, nn.Linear):
                linear.weight.copy_(torch.from_numpy(fake_weight(linear.weight.numpy(), *self.grid)))
        return result

    @contextmanager
    def _integer_activations(self, module: nn.Module, behind: nn.Module | None = None):
        """Every linear's input on its grid; at ``behind`` another hook has seen the input before."""
        handles = []
        if self.activation_bits is not None:
            for linear in module.modules():
                if isinstance(linear, nn.Linear):
                    handles.append(linear.register_forward_pre_hook(lambda _m, args: (self._rounded(args[0]),)))
        yield behind
        for handle in handles:
            handle.remove()

    def _rounded(self, x: Tensor) -> Tensor:
        return torch.from_numpy(fake_activation(x.detach().numpy(), self.activation_bits))


def first(output) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
