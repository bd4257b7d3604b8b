"""Reading what flows into modules, without running more of the model than needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qig.data.calibration import CalibrationBatch
from qig.models.loading import LoadedModel
from qig.quantization.linear import substituted


@dataclass
class Call:
    """A recorded call of a module: its hidden states ``[batch, tokens, channels]`` and all other arguments."""

    x: Tensor
    kwargs: dict[str, Any]

    def __call__(self, module: nn.Module, x: Tensor | None = None) -> Tensor:
        """Repeat the call, with other hidden states if given; a tuple's first element is the output."""
        output = module(self.x if x is None else x, **self.kwargs)
        return output[0] if isinstance(output, tuple) else output


class _Recorder(nn.Module):
    """Stands in for a decoder block: records the call and passes the hidden states on unchanged."""

    def __init__(self, block: nn.Module, calls: list[Call]) -> None:
        super().__init__()
        self.__dict__["block"] = block  # not a submodule: the original must stay where it is
        self.calls = calls

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:  # models read attributes of their blocks, such as the attention type
            return getattr(self.__dict__["block"], name)

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        self.calls.append(Call(hidden_states.detach(), kwargs))
        return hidden_states


@torch.no_grad()
def block_calls(loaded: LoadedModel, batch: CalibrationBatch, device: torch.device) -> list[Call]:
    """The arguments that ``model.forward`` gives each decoder block for one micro-batch.

    The blocks themselves are not run: only the first call's hidden states are those of the model, the other calls
    tell the masks and position embeddings of their block.
    """
    calls: list[Call] = []
    recorders = {str(i): _Recorder(block, calls) for i, block in enumerate(loaded.blocks)}
    inputs = {name: value.to(device) for name, value in batch.inputs.items()}
    with substituted(loaded.blocks, recorders):
        # A cache would make a replayed block see its own keys twice.
        loaded.model(**inputs, use_cache=False, logits_to_keep=1)
    return calls


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
