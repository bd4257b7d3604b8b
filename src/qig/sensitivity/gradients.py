"""Gradients of the supervised loss at the outputs of modules inside the decoder blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from qig.blockwise.activations import Activations, Shelf
from qig.blockwise.capture import logits_behind
from qig.blockwise.streams import Streams
from qig.data.calibration import IGNORE, CalibrationBatch
from qig.finite import located, refuse_non_finite
from qig.models.loading import LoadedModel
from qig.sensitivity.kept_gradients import Gradients, KeptGradients


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


def loss_scale(dtype: torch.dtype) -> float:
    """What the loss is multiplied by for its backward pass, and gradients are divided by in float32.

    float16 has nothing below 6e-8, where many a vision token's gradient lies; a power of two changes no digit.
    """
    return 4096.0 if dtype == torch.float16 else 1.0


def output_gradients(
    loaded: LoadedModel,
    batches: Sequence[CalibrationBatch],
    names: Sequence[str],
    activations: Activations,
    kept: KeptGradients | None = None,
) -> list[Gradients]:
    """``mean_c |dL/dy|`` at the output y of the named modules of every block.

    One forward pass block by block that keeps what enters each block, then one backward pass in which every block is
    run once more: never more than one block is on the device. With ``kept`` each block's result is on the disk before
    the next one begins, and blocks that are there already are not done again.

    Returns:
        By block: module name to one ``[batch, tokens]`` float32 per micro-batch.

    Raises:
        NonFiniteError: a gradient is not a number; names block, module and sample.
    """
    blocks = len(loaded.blocks)
    todo = blocks if kept is None else kept.remaining()
    found: list[Gradients] = []
    if todo:
        with tqdm(total=2 * todo, desc="gradients", unit="block", leave=False, disable=None) as progress:
            for index, running, gradients, seconds in _backward(loaded, batches, names, activations, kept, todo):
                if kept is None:
                    found.insert(0, gradients)
                else:
                    kept.add(index, gradients, running, seconds)
                progress.update(2)
    return found if kept is None else kept.read(names)


def hidden_bytes(loaded: LoadedModel, batches: Sequence[CalibrationBatch]) -> int:
    """What enters one block: hidden states of all micro-batches, padding included."""
    places = sum(batch.kinds.numel() for batch in batches)
    text = loaded.model.config.get_text_config()
    return places * text.hidden_size * next(loaded.blocks[0].parameters()).dtype.itemsize


def _backward(
    loaded: LoadedModel,
    batches: Sequence[CalibrationBatch],
    names: Sequence[str],
    activations: Activations,
    kept: KeptGradients | None,
    todo: int,
) -> Iterator[tuple[int, Shelf, Gradients, float]]:
    """The first ``todo`` blocks from the last to the first: what runs on before each, its gradients, and seconds."""
    start = time.perf_counter()
    streams = Streams(loaded, list(batches), activations, with_quantized=False)
    whole = todo == len(loaded.blocks)
    entering: list[Shelf] = []
    aside = activations.aside(todo * hidden_bytes(loaded, batches))
    for index in range(todo):
        entering.append(streams.exact if aside is activations else aside.shelf(streams.exact))
        if whole or index + 1 < todo:
            with loaded.block(index) as block:
                streams.advance(index, block, None)
    if whole:
        with loaded.frame():
            running = activations.shelf(
                _at_the_end(loaded, batch, streams.exact[i], activations.device) for i, batch in enumerate(batches)
            )
        if kept is not None:
            kept.note_forward(time.perf_counter() - start)
    else:
        running = activations.shelf(x.to(activations.device) for x in kept.running(todo))
    for index in reversed(range(todo)):
        start = time.perf_counter()
        streams.exact = entering.pop()
        gradients: Gradients = {name: [] for name in names}
        with loaded.block(index) as block:
            running = activations.shelf(
                _through(streams, index, i, block, running[i], gradients) for i in range(len(batches))
            )
        yield index, running, gradients, time.perf_counter() - start


def _at_the_end(loaded: LoadedModel, batch: CalibrationBatch, hidden: Tensor, device: torch.device) -> Tensor:
    """``dL/dh`` of the hidden states behind the last block, ``[batch, tokens, channels]``, times the loss's scale."""
    targets = batch.labels[:, 1:]
    columns = (targets != IGNORE).any(0).nonzero().flatten()
    with torch.enable_grad():
        hidden = hidden.detach().requires_grad_()
        logits = logits_behind(loaded, batch, hidden, columns.to(device), device)
        loss = sft_loss(logits, targets[:, columns].to(device))
        gradient = torch.autograd.grad(loss * loss_scale(hidden.dtype), hidden)[0]
    refuse_non_finite("gradients behind the last block", gradient, batch.ids, batch.real)
    return gradient


def _through(
    streams: Streams, index: int, batch: int, block: nn.Module, gradient: Tensor, found: Gradients
) -> Tensor:
    """From ``dL/d(output)`` to ``dL/d(input)`` of a block, both times the loss's scale.

    Each list of ``found`` gets that of its module, without the scale.
    """
    of, real = streams.batches[batch].ids, streams.batches[batch].real

    def keep(name: str):
        def on_forward(_module, _args, output: Tensor) -> None:
            output.register_hook(lambda g: found[name].append(g.abs().float().mean(-1) / loss_scale(g.dtype)))

        return on_forward

    handles = [block.get_submodule(name).register_forward_hook(keep(name)) for name in found]
    call = streams.call(index, batch, "exact")
    try:
        with torch.enable_grad():
            x = call.x.detach().requires_grad_()
            before = torch.autograd.grad(call(block, x), x, gradient)[0]
    finally:
        for handle in handles:
            handle.remove()
    for name, values in [*((name, values[-1]) for name, values in found.items()), ("input", before)]:
        with located(index, name):
            refuse_non_finite("gradients", values, of, real)
    return before
