"""The two streams of hidden states that run through the decoder blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qig.blockwise.activations import Activations, Shelf, brought
from qig.blockwise.capture import Call, Entry, enter, recording
from qig.data.calibration import CalibrationBatch
from qig.finite import located, refuse_non_finite
from qig.models.architectures import Site
from qig.models.loading import LoadedModel
from qig.quantization.linear import substituted


class _Silent(nn.Module):
    """Takes the place of a module that nobody listens to: zeros of the width of its output."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.width = getattr(module, "out_features", None)  # an MLP's output is as wide as its input

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(*x.shape[:-1], self.width or x.shape[-1])


class Streams:
    """Hidden states in front of the current block, one tensor ``[batch, tokens, channels]`` per micro-batch.

    ``exact`` is what the full-precision model carries; ``quantized`` what the already quantized blocks really
    produce (only kept if asked for). Both begin with the same embeddings. What the model adds between its blocks is
    added to both.

    Raises:
        NonFiniteError: an embedding is not a number; names the sample.
    """

    def __init__(
        self, loaded: LoadedModel, batches: list[CalibrationBatch], activations: Activations, with_quantized: bool
    ) -> None:
        self.batches = batches
        self.activations = activations
        self.kinds = [batch.kinds.to(activations.device) for batch in batches]
        self.exact = activations.shelf()
        self._entries: list[Entry] = []
        with loaded.frame():
            for batch in batches:
                x, entry = enter(loaded, batch, activations)
                refuse_non_finite("embeddings", x, batch.ids, batch.real)
                self.exact.append(x)
                self._entries.append(entry)
        self.quantized: Shelf | None = self.exact if with_quantized else None

    def call(self, index: int, batch: int, stream: str) -> Call:
        """The call of block ``index`` for one micro-batch on one stream, ``exact`` or ``quantized``."""
        return Call(getattr(self, stream)[batch], self._entries[batch].kwargs[index])

    @torch.no_grad()
    def run(self, index: int, block: nn.Module, stream: str) -> Shelf:
        """Hidden states behind block ``index`` on one stream.

        Raises:
            NonFiniteError: a hidden state is not a number; names the block, the stream and the sample.
        """
        outputs = self.activations.shelf()
        for i in range(len(self.batches)):
            outputs.append(self._behind(index, i, self.call(index, i, stream)(block), stream))
        return outputs

    def advance(self, index: int, exact_block: nn.Module | None, quantized_block: nn.Module | None) -> None:
        """Move the streams behind block ``index``; a stream whose block is ``None`` stays where it is."""
        if exact_block is not None:
            self.exact = self.run(index, exact_block, "exact")
        if quantized_block is not None and self.quantized is not None:
            self.quantized = self.run(index, quantized_block, "quantized")

    def site_calls(
        self, index: int, block: nn.Module, sites: list[Site], stream: str
    ) -> tuple[dict[str, list[Call]], Shelf]:
        """Run block ``index`` on a stream: calls of each site's inspected module per micro-batch, and the outputs.

        Raises:
            NonFiniteError: what enters a site, or leaves the block, is not a number; names block, site and sample.
        """
        found: dict[str, list[Call]] = {site.name: [] for site in sites}
        outputs = self.activations.shelf()
        modules = {site.name: block.get_submodule(site.inspected) for site in sites}
        for i in range(len(self.batches)):
            with torch.no_grad(), recording(modules) as recorded:
                y = self.call(index, i, stream)(block)
            for name, call in recorded.items():  # in the order of the calls: the first one to fail is named
                with located(index, name):
                    self._check(f"inputs ({stream} stream)", call.x, i)
                found[name].append(call.kept(self.activations))
            outputs.append(self._behind(index, i, y, stream))
        return found, outputs

    def site_inputs(
        self, index: int, block: nn.Module, site: Site, later: tuple[Site, ...], stream: str
    ) -> list[Call]:
        """The calls of one site's inspected module alone, per micro-batch; what stands behind it is not computed.

        Args:
            later: the site and those behind it in the block; their modules are left out.

        Raises:
            NonFiniteError: what enters the site is not a number; names block, site and sample.
        """
        left_out = {s.inspected: _Silent(block.get_submodule(s.inspected)) for s in later if not s.mixes_tokens}
        names = [name for name in left_out if not any(name.startswith(f"{other}.") for other in left_out)]
        calls = []
        with torch.no_grad(), substituted(block, {name: left_out[name] for name in names}):
            for i in range(len(self.batches)):
                with recording({site.name: block.get_submodule(site.inspected)}) as recorded:
                    self.call(index, i, stream)(block)
                with located(index, site.name):
                    self._check(f"inputs ({stream} stream)", recorded[site.name].x, i)
                calls.append(recorded[site.name].kept(self.activations))
        return calls

    def flat(self, values: list[Tensor]) -> Tensor:
        """Values ``[batch, tokens]`` of all real tokens, in the order of the calibration set: ``[tokens]`` float32."""
        rows = {
            position: values[i][row][batch.real[row].to(values[i].device)].float().cpu()
            for i, batch in enumerate(self.batches)
            for row, position in enumerate(batch.order)
        }
        return torch.cat([rows[position] for position in sorted(rows)])

    def _behind(self, index: int, i: int, y: Tensor, stream: str) -> Tensor:
        """What the next block receives: the output, checked, and what the model adds to it."""
        with located(index):
            self._check(f"hidden states behind the block ({stream} stream)", y, i)
        added = self._entries[i].added
        return y if index + 1 >= len(added) or added[index + 1] is None else y + brought(added[index + 1])

    def _check(self, what: str, x: Tensor, i: int) -> None:
        refuse_non_finite(what, x, self.batches[i].ids, self.batches[i].real)
