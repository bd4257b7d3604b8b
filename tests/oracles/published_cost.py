"""QIG as its release runs it, at the release's cost: what ``qig-bench published`` measures the package against.

The structure is that of the AWQ and MBQ code which the release extends (METHOD sections 4 and 5): a full-model
backward pass that nobody reads; a block's linears' inputs of all samples held on the host, each by itself, and moved to
the device and back site by site; 32 forward and backward passes of the full-precision module and of a deep-copied
quantized one per site; 20 grid points, each with a copy of the state dict on the host, a quantization in place and a
forward pass over everything, whatever the errors so far are. Nothing is done twice that the release does once; grids
are vectorised, and micro-batches are what the caller makes them (the release: all samples together).

It reads the model's modules and nothing else of the package. ``host`` copies even where the device is the processor:
the release holds both.
"""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

PADDING, VISION, ANSWER, IGNORE = 0, 2, 3, -100
NODES, POINTS = 32, 20
# Grouped-query attention: attn_out is skipped. Inspected module, linears that take the scale, what takes its inverse.
SITES = {
    "attn_in": ("self_attn", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "input_layernorm"),
    "mlp_in": ("mlp", ("mlp.gate_proj", "mlp.up_proj"), "post_attention_layernorm"),
    "mlp_out": ("mlp.down_proj", ("mlp.down_proj",), "mlp.up_proj"),
}


class Published:
    """One calibration. Afterwards ``seconds`` has the seconds by stage that ``clock`` counts, one dict a block.

    Args:
        bits, symmetric, group: of the weights; ``activation_bits`` or ``None``.
        warm_up: searched modules that get uniform weights in front of the others (5 in the release at W3A16).
    """

    def __init__(
        self,
        bits: int,
        symmetric: bool,
        group: int | None,
        activation_bits: int | None,
        warm_up: int = 5,
        clock: Callable[[], float] = time.process_time,
    ) -> None:
        self.grid, self.activation_bits, self.warm_up = (bits, symmetric, group), activation_bits, warm_up
        self.clock = clock
        self.seconds: list[dict[str, float]] = []
        self.unused: dict[str, float] = {}

    @torch.no_grad()
    def run(self, model: nn.Module, blocks: nn.ModuleList, batches) -> dict[tuple[int, str], dict]:
        """Quantize ``blocks`` in place. Per block and site: token weights per micro-batch, losses, exponent."""
        with self._timed(self.unused, "gradients"):
            for batch in batches:
                self._unused_gradients(model, blocks[0], batch)
        caught = [self._catch(model, blocks[0], batch) for batch in batches]
        self.kinds, self.searched = [batch.kinds for batch in batches], 0
        exact, arguments = [host(x) for x, _ in caught], [kwargs for _, kwargs in caught]
        drifted, found = exact, {}
        for index, block in enumerate(blocks):
            self.seconds.append({})
            with self._timed(self.seconds[-1], "capture"):
                inputs, calls, exact_behind = self._inputs_of_all_linears(block, exact, arguments)
            for site in SITES:
                found[index, site] = self._site(site, block, inputs, calls, drifted, arguments)
            with self._timed(self.seconds[-1], "rounding"):
                for linear in linears_of(block):
                    linear.weight.data = self._rounded_weight(linear.weight)
            with self._timed(self.seconds[-1], "propagation"):
                if self.activation_bits is not None:
                    with self._integer_activations(block):
                        drifted = self._behind(block, drifted, arguments)
                exact = exact_behind
        return found

    def _site(self, site: str, block: nn.Module, inputs, calls, drifted, arguments) -> dict:
        module, consumers, producer = SITES[site]
        f, seconds = block.get_submodule(module), self.seconds[-1]
        exact, references = inputs[consumers[0]], None
        if self.activation_bits is not None:
            with self._timed(seconds, "propagation"):
                quantized = self._quantized_copy(block)
                with self._integer_activations(quantized):
                    references = self._inputs_of_all_linears(quantized, drifted, arguments)[0][consumers[0]]
                del quantized
        with self._timed(seconds, "attribution"):
            weights = self._weights(f, exact, references, calls[site])
            self.searched += 1
        with self._timed(seconds, "search"):
            losses, scale, exponent = self._search(
                f, module, consumers, exact if references is None else references, calls[site], weights
            )
            fold(block, producer, consumers, scale)
        return {"weights": weights, "losses": losses, "exponent": exponent}

    # What is held.

    def _unused_gradients(self, model: nn.Module, first: nn.Module, batch) -> None:
        """The loss's gradients through the whole model, as MBQ's weights need them."""
        leaves = []

        def leaf(_module, args, kwargs):
            x = args[0] if args else kwargs["hidden_states"]
            leaves.append(x.detach().requires_grad_())
            return ((leaves[0], *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": leaves[0]})

        handle = first.register_forward_pre_hook(leaf, with_kwargs=True)
        with torch.enable_grad():
            logits = model(**_on_device(batch, model), use_cache=False).logits
            targets = batch.labels[:, 1:].to(logits.device)
            loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
            torch.autograd.grad(loss, leaves[0])
        handle.remove()

    def _catch(self, model: nn.Module, first: nn.Module, batch) -> tuple[Tensor, dict]:
        """What enters the first block; its other arguments serve every block."""
        caught = []

        def catch(_module, args, kwargs):
            kwargs = dict(kwargs)
            caught.append((args[0] if args else kwargs.pop("hidden_states"), kwargs))
            raise Caught

        handle = first.register_forward_pre_hook(catch, with_kwargs=True)
        try:
            model(**_on_device(batch, model), use_cache=False)
        except Caught:
            return caught[0]
        finally:
            handle.remove()

    def _inputs_of_all_linears(self, block: nn.Module, stream: list[Tensor], arguments):
        """By linear the inputs per micro-batch on the host; the calls' other arguments by site; the outputs."""
        inputs, calls = defaultdict(list), defaultdict(list)

        def keep(name: str):
            return lambda _module, args: inputs[name].append(host(args[0]))

        def remember(site: str):
            def hook(_module, args, kwargs):
                calls[site].append({name: value for name, value in kwargs.items() if name != "hidden_states"})

            return hook

        linears = {name: module for name, module in block.named_modules() if isinstance(module, nn.Linear)}
        # In front of what may round them.
        handles = [linear.register_forward_pre_hook(keep(n), prepend=True) for n, linear in linears.items()]
        for site, (module, *_) in SITES.items():
            inner = block.get_submodule(module)
            handles.append(inner.register_forward_pre_hook(remember(site), with_kwargs=True))
        behind = self._behind(block, stream, arguments)
        for handle in handles:
            handle.remove()
        return inputs, calls, behind

    def _behind(self, block: nn.Module, stream: list[Tensor], arguments) -> list[Tensor]:
        device = next(block.parameters()).device
        return [host(first(block(x.to(device), **kwargs))) for x, kwargs in zip(stream, arguments, strict=True)]

    # Attribution.

    def _weights(self, f: nn.Module, exact, references, calls) -> list[Tensor]:
        device, weights = next(f.parameters()).device, []
        if self.activation_bits is None and self.searched < self.warm_up:
            scores = [((kinds == VISION) | (kinds == ANSWER)).float() for kinds in self.kinds]
        else:
            scores = []
            for number, x in enumerate(exact):
                x = x.to(device)
                reference = torch.zeros_like(x) if references is None else references[number].to(device)
                real = (self.kinds[number] != PADDING).to(device)
                found = self._scores(f, x, reference, calls[number], real)
                scores.append(found if bool(found.any()) else real.to(found))  # x' = x: uniform
        for values in scores:
            weights.append((values / values.sum(1, keepdim=True)).float().cpu())
        return weights

    def _scores(self, f: nn.Module, x: Tensor, reference: Tensor, kwargs: dict, real: Tensor) -> Tensor:
        """32 points with both ends, each weighted 1/32; W4A8: the quantized branch is a constant, times 1000."""
        quantized = self._quantized_copy(f)
        total = torch.zeros_like(x)
        for step in range(NODES):
            point = (reference + step / (NODES - 1) * (x - reference)).requires_grad_()
            with torch.enable_grad():
                if self.activation_bits is None:
                    error = first(f(point, **kwargs)) - first(quantized(point, **kwargs))
                else:
                    with torch.no_grad(), self._integer_activations(quantized):
                        constant = first(quantized(point.detach(), **kwargs))
                    error = 1000 * (first(f(point, **kwargs)) - constant)
                total += torch.autograd.grad((error.abs().mean(-1) * real).sum(), point)[0] / NODES
        scores = ((x - reference) * total).abs().mean(-1) * real
        if self.activation_bits is not None:
            return scores  # the bounds are computed but not applied
        for row, keep in zip(scores, real, strict=True):
            low, high = torch.quantile(row[keep].float(), torch.tensor([0.25, 0.75], device=row.device))
            row[keep] = row[keep].clamp(low - 1.5 * (high - low), high + 1.5 * (high - low))
        return scores

    # Search.

    def _search(self, f: nn.Module, module: str, consumers, inputs, calls, weights):
        """Absolute error of f's output over everything, for each of 20 exponents."""
        device = next(f.parameters()).device
        inputs = [x.to(device) for x in inputs]
        real = [(kinds != PADDING).to(device) for kinds in self.kinds]
        statistic = torch.cat([x[keep].abs() for x, keep in zip(inputs, real, strict=True)]).mean(0).float()
        exact = [first(f(x, **kwargs)) for x, kwargs in zip(inputs, calls, strict=True)]
        losses, scales = [], []
        for ratio in range(POINTS):
            s = (statistic ** (ratio / POINTS)).clamp(min=1e-4)
            s = s / (s.max() * s.min()).sqrt()
            state = {name: host(value) for name, value in f.state_dict().items()}
            tried = f if self.activation_bits is None else copy.deepcopy(f)
            linears = [tried.get_submodule(name.removeprefix(module).removeprefix(".")) for name in consumers]
            for linear in linears:
                scaled = self._rounded_weight(linear.weight.float() * s)
                linear.weight.data = (scaled / s if self.activation_bits is None else scaled).to(linear.weight.dtype)
            loss = 0.0
            with self._scaled_inputs(linears, s):
                for x, kwargs, y, weight in zip(inputs, calls, exact, weights, strict=True):
                    error = (y - first(tried(x, **kwargs))).float().abs().mean(-1)
                    loss += float((error * weight.to(device)).sum())
            f.load_state_dict(state)
            losses.append(loss)
            scales.append(s)
        best = min(range(POINTS), key=losses.__getitem__)
        return losses, scales[best], best / POINTS

    @contextmanager
    def _scaled_inputs(self, linears: list[nn.Module], s: Tensor) -> Iterator[None]:
        """With integer activations ``Q_X(x / s)`` in front of every linear that has taken the scale."""
        def scaled(_module, args):
            return (self._rounded(args[0] / s).to(args[0].dtype),)

        handles = []
        if self.activation_bits is not None:
            handles = [linear.register_forward_pre_hook(scaled) for linear in linears]
        yield
        for handle in handles:
            handle.remove()

    @contextmanager
    def _timed(self, seconds: dict[str, float], stage: str) -> Iterator[None]:
        start = self.clock()
        yield
        seconds[stage] = seconds.get(stage, 0.0) + self.clock() - start

    # Grids.

    def _quantized_copy(self, module: nn.Module) -> nn.Module:
        result = copy.deepcopy(module)
        for linear in linears_of(result):
            linear.weight.data = self._rounded_weight(linear.weight)
        return result

    @contextmanager
    def _integer_activations(self, module: nn.Module) -> Iterator[None]:
        """Every linear's input on its grid; hooks that were there before see it as it came."""
        handles = []
        if self.activation_bits is not None:
            for linear in linears_of(module):
                handles.append(linear.register_forward_pre_hook(lambda _m, args: (self._rounded(args[0]),)))
        yield
        for handle in handles:
            handle.remove()

    def _rounded_weight(self, weight: Tensor) -> Tensor:
        bits, symmetric, group = self.grid
        values = weight.float().reshape(weight.shape[0], -1, group or weight.shape[1])
        if symmetric:
            top = 2 ** (bits - 1) - 1
            scale = values.abs().amax(-1, keepdim=True).clamp(min=1e-5) / top
            rounded = (values / scale).round().clamp(-top - 1, top) * scale
        else:
            top, low = 2**bits - 1, values.amin(-1, keepdim=True)
            scale = (values.amax(-1, keepdim=True) - low).clamp(min=1e-5) / top
            zero = (-low / scale).round().clamp(0, top)
            rounded = (((values / scale).round() + zero).clamp(0, top) - zero) * scale
        return rounded.reshape(weight.shape).to(weight.dtype)

    def _rounded(self, x: Tensor) -> Tensor:
        top, values = 2 ** (self.activation_bits - 1) - 1, x.float()
        scale = values.abs().amax(-1, keepdim=True).clamp(min=1e-5) / top
        return ((values / scale).round().clamp(-top - 1, top) * scale).to(x.dtype)


class Caught(Exception):
    """The model's own pass ends in front of the first block."""


def fold(block: nn.Module, producer: str, consumers, s: Tensor) -> None:
    weight = block.get_submodule(producer).weight
    weight.data = (weight.float() / (s if weight.dim() == 1 else s[:, None])).to(weight.dtype)
    for name in consumers:
        weight = block.get_submodule(name).weight
        weight.data = (weight.float() * s).to(weight.dtype)


def linears_of(module: nn.Module) -> list[nn.Linear]:
    return [inner for inner in module.modules() if isinstance(inner, nn.Linear)]


def host(x: Tensor) -> Tensor:
    return x.detach().to("cpu", copy=True)


def first(output) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _on_device(batch, model: nn.Module) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    return {name: value.to(device) for name, value in batch.inputs.items()}
