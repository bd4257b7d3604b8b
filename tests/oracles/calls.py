"""Running whole models the plain way."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def logits_of(loaded, batches) -> list[Tensor]:
    """Logits ``[batch, tokens, vocabulary]`` of ``model.forward`` for each micro-batch."""
    return [loaded.model(**batch.inputs, use_cache=False).logits for batch in batches]


@torch.no_grad()
def block_inputs_and_outputs(loaded, batch) -> tuple[list[Tensor], list[Tensor]]:
    """What enters and what leaves each decoder block in one ordinary forward pass."""
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []

    def keep(_module, args, kwargs, output):
        inputs.append(args[0] if args else kwargs["hidden_states"])
        outputs.append(output[0] if isinstance(output, tuple) else output)

    handles = [block.register_forward_hook(keep, with_kwargs=True) for block in loaded.blocks]
    try:
        loaded.model(**batch.inputs, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return inputs, outputs
