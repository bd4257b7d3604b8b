"""Reading what flows into modules, without running more of the model than needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qig.blockwise.activations import Activations, Kept, brought, each_tensor
from qig.data.calibration import CalibrationBatch
from qig.models.loading import LoadedModel
from qig.quantization.linear import substituted


class Call:
    """A recorded call of a module: its hidden states ``[batch, tokens, channels]`` and all other arguments.

    Either may have been put away; then they are brought back to the device whenever they are asked for.
    """

    def __init__(self, x: Tensor | Kept, kwargs: dict[str, Any]) -> None:
        self._x, self._kwargs = x, kwargs

    @property
    def x(self) -> Tensor:
        return brought(self._x)

    @property
    def kwargs(self) -> dict[str, Any]:
        return each_tensor(brought, self._kwargs)

    def __call__(self, module: nn.Module, x: Tensor | None = None) -> Tensor:
        """Repeat the call, with other hidden states if given; a tuple's first element is the output."""
        output = module(self.x if x is None else x, **self.kwargs)
        return output[0] if isinstance(output, tuple) else output

    def kept(self, activations: Activations) -> Call:
        """The same call, put away."""
        return Call(activations.keep(self.x), each_tensor(activations.keep, self.kwargs))


class _StandIn(nn.Module):
    """Takes a decoder block's place; models may read attributes of their blocks, such as the attention type."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.__dict__["block"] = block  # not a submodule: the original must stay where it is

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["block"], name)


class _Recorder(_StandIn):
    """Records the call and hands on zeros: what then arrives at the next block is what the model itself added."""

    def __init__(self, block: nn.Module, calls: list[Call]) -> None:
        super().__init__(block)
        self.calls = calls

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        self.calls.append(Call(hidden_states.detach(), kwargs))
        return torch.zeros_like(hidden_states)


class _Feed(_StandIn):
    """Hands on the given hidden states whatever arrives."""

    def __init__(self, block: nn.Module, hidden: Tensor) -> None:
        super().__init__(block)
        self.hidden = hidden

    def forward(self, hidden_states: Tensor, **_: Any) -> Tensor:
        return self.hidden


@dataclass
class Entry:
    """What ``model.forward`` gives its decoder blocks for one micro-batch, beside the hidden states.

    Attributes:
        kwargs: the other arguments, one dict a block.
        added: what the model itself adds to the hidden states in front of each block (Qwen3-VL's deepstack features);
            ``None`` where that is nothing.
    """

    kwargs: list[dict[str, Any]]
    added: list[Tensor | Kept | None]


@torch.no_grad()
def enter(loaded: LoadedModel, batch: CalibrationBatch, activations: Activations) -> tuple[Tensor, Entry]:
    """Run everything in front of the decoder blocks and between them, but not the blocks themselves.

    Returns:
        The hidden states in front of the first block, ``[batch, tokens, channels]``, and what comes with them.
    """
    calls: list[Call] = []
    recorders = {str(i): _Recorder(block, calls) for i, block in enumerate(loaded.blocks)}
    with substituted(loaded.blocks, recorders):
        _forward(loaded, batch, activations.device, logits_to_keep=1)
    first, *others = calls
    known: dict[int, Tensor | Kept] = {}  # masks and position embeddings are the same objects for all blocks

    def keep(tensor: Tensor) -> Tensor | Kept:
        if id(tensor) not in known:
            known[id(tensor)] = activations.keep(tensor)
        return known[id(tensor)]

    added = [activations.keep(call.x) if bool(call.x.any()) else None for call in others]
    return first.x, Entry([each_tensor(keep, call.kwargs) for call in calls], [None, *added])


def logits_behind(
    loaded: LoadedModel, batch: CalibrationBatch, hidden: Tensor, columns: Tensor, device: torch.device
) -> Tensor:
    """Logits ``[batch, columns, vocabulary]`` of hidden states ``[batch, tokens, channels]`` behind the last block.

    Differentiable with respect to ``hidden``; only the given columns of the tokens meet the vocabulary.
    """
    feeds = {str(i): _Feed(block, hidden) for i, block in enumerate(loaded.blocks)}
    with substituted(loaded.blocks, feeds):
        return _forward(loaded, batch, device, logits_to_keep=columns)


def _forward(loaded: LoadedModel, batch: CalibrationBatch, device: torch.device, logits_to_keep: int | Tensor):
    inputs = {name: value.to(device) for name, value in batch.inputs.items()}
    # A cache would make a replayed block see its own keys twice.
    return loaded.model(**inputs, use_cache=False, logits_to_keep=logits_to_keep).logits


@contextmanager
def recording(modules: dict[str, nn.Module]) -> Iterator[dict[str, Call]]:
    """Within the context the last call of each named module is recorded under its name."""
    calls: dict[str, Call] = {}
    handles = [
        module.register_forward_pre_hook(_hook(name, calls), with_kwargs=True) for name, module in modules.items()
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _hook(name: str, calls: dict[str, Call]):
    def record(_module: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        kwargs = dict(kwargs)
        x = args[0] if args else kwargs.pop("hidden_states")
        calls[name] = Call(x.detach(), kwargs)

    return record
