"""Gradients of the supervised loss at the outputs of modules inside the decoder blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from qig.blockwise.activations import Activations, Shelf
from qig.blockwise.capture import logits_behind
from qig.blockwise.streams import Streams
from qig.data.calibration import IGNORE, CalibrationBatch
from qig.models.loading import LoadedModel


def sft_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum over samples of each sample's mean negative log-likelihood of its labelled tokens.

    The mean within a sample and the sum over samples make a sample's gradient independent of the micro-batch that it
    happens to be in.

    Args:
        logits: ``[batch, tokens, vocabulary]``.
        targets: ``[batch, tokens]``, the token that follows; -100 where nothing is learned.
    """
    precise = logits.flatten(0, 1).to(torch.promote_types(logits.dtype, torch.float32))
    losses = functional.cross_entropy(precise, targets.flatten(), ignore_index=IGNORE, reduction="none")
    losses = losses.view(targets.shape)
    return (losses.sum(1) / (targets != IGNORE).sum(1)).sum()


def output_gradients(
    loaded: LoadedModel, batches: Sequence[CalibrationBatch], names: Sequence[str], activations: Activations
) -> list[list[dict[str, Tensor]]]:
    """``mean_c |dL/dy|`` at the output y of the named modules of every block.

    One forward pass block by block that keeps what enters each block, then one backward pass in which every block is
    run once more: never more than one block is on the device.

    Returns:
        By micro-batch and block a dict: module name to ``[batch, tokens]`` float32.
    """
    found: list[list[dict[str, Tensor]]] = [[{} for _ in loaded.blocks] for _ in batches]
    streams = Streams(loaded, list(batches), activations, with_quantized=False)
    entering: list[Shelf] = []
    with tqdm(total=2 * len(loaded.blocks), desc="gradients", unit="block", leave=False, disable=None) as progress:
        for index in range(len(loaded.blocks)):
            entering.append(streams.exact)
            with loaded.block(index) as block:
                streams.advance(index, block, None)
            progress.update()
        with loaded.frame():
            gradients = activations.shelf(
                _at_the_end(loaded, batch, streams.exact[i], activations.device) for i, batch in enumerate(batches)
            )
        for index in reversed(range(len(loaded.blocks))):
            streams.exact = entering.pop()
            with loaded.block(index) as block:
                gradients = activations.shelf(
                    _through(streams, index, i, block, gradients[i], names, found[i][index])
                    for i in range(len(batches))
                )
            progress.update()
    return found


def _at_the_end(loaded: LoadedModel, batch: CalibrationBatch, hidden: Tensor, device: torch.device) -> Tensor:
    """``dL/dh`` of the hidden states behind the last block, ``[batch, tokens, channels]``."""
    targets = batch.labels[:, 1:]
    columns = (targets != IGNORE).any(0).nonzero().flatten()
    with torch.enable_grad():
        hidden = hidden.detach().requires_grad_()
        logits = logits_behind(loaded, batch, hidden, columns.to(device), device)
        loss = sft_loss(logits, targets[:, columns].to(device))
        return torch.autograd.grad(loss, hidden)[0]


def _through(
    streams: Streams, index: int, batch: int, block: nn.Module, gradient: Tensor, names: Sequence[str], found: dict
) -> Tensor:
    """From ``dL/d(output)`` to ``dL/d(input)`` of a block; on the way ``found`` gets the gradients of the modules."""

    def keep(name: str):
        def on_forward(_module, _args, output: Tensor) -> None:
            output.register_hook(lambda g: found.__setitem__(name, g.abs().float().mean(-1)))

        return on_forward

    handles = [block.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    call = streams.call(index, batch, "exact")
    try:
        with torch.enable_grad():
            x = call.x.detach().requires_grad_()
            return torch.autograd.grad(call(block, x), x, gradient)[0]
    finally:
        for handle in handles:
            handle.remove()
