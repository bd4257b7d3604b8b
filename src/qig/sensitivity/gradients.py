"""Gradients of the supervised loss at the outputs of modules inside the decoder blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from qig.data.calibration import IGNORE, CalibrationBatch
from qig.models.loading import LoadedModel


def sft_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum over samples of each sample's mean negative log-likelihood of its labelled tokens.

    The mean within a sample and the sum over samples make a sample's gradient independent of the micro-batch that it
    happens to be in.

    Args:
        logits: ``[batch, tokens, vocabulary]``.
        labels: ``[batch, tokens]``, -100 where nothing is learned.
    """
    targets = labels[:, 1:]
    losses = functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE, reduction="none"
    ).view(targets.shape)
    return (losses.sum(1) / (targets != IGNORE).sum(1)).sum()


def output_gradients(
    loaded: LoadedModel, batch: CalibrationBatch, names: Sequence[str], device: torch.device
) -> list[dict[str, Tensor]]:
    """``mean_c |dL/dy|`` at the output y of the named modules of every block, one full forward and backward pass.

    Returns:
        One dict a block: module name to ``[batch, tokens]`` float32.
    """
    found: list[dict[str, Tensor]] = [{} for _ in loaded.blocks]

    def start_graph(_module, args, kwargs):
        return (args[0].detach().requires_grad_(), *args[1:]), kwargs

    def keep(block: int, name: str):
        def on_forward(_module, _args, output: Tensor) -> None:
            output.register_hook(lambda gradient: found[block].__setitem__(name, gradient.abs().float().mean(-1)))

        return on_forward

    handles = [loaded.blocks[0].register_forward_pre_hook(start_graph, with_kwargs=True)]
    for i, block in enumerate(loaded.blocks):
        handles += [block.get_submodule(name).register_forward_hook(keep(i, name)) for name in names]
    try:
        with torch.enable_grad():
            inputs = {name: value.to(device) for name, value in batch.inputs.items()}
            logits = loaded.model(**inputs, use_cache=False).logits
            sft_loss(logits, batch.labels.to(device)).backward()
    finally:
        for handle in handles:
            handle.remove()
    return found
