"""The two streams of hidden states that run through the decoder blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qig.blockwise.capture import Call, block_calls, recording
from qig.data.calibration import CalibrationBatch
from qig.errors import QigError
from qig.models.architectures import Site
from qig.models.loading import LoadedModel


class Streams:
    """Hidden states in front of the current block, one tensor ``[batch, tokens, channels]`` per micro-batch.

    ``exact`` is what the full-precision model carries; ``quantized`` what the already quantized blocks really
    produce (only kept if asked for). Both begin with the same embeddings.
    """

    def __init__(
        self, loaded: LoadedModel, batches: list[CalibrationBatch], device: torch.device, with_quantized: bool
    ) -> None:
        self.batches = batches
        self.kinds = [batch.kinds.to(device) for batch in batches]
        self._calls = [block_calls(loaded, batch, device) for batch in batches]
        self.exact: list[Tensor] = [calls[0].x for calls in self._calls]
        self.quantized: list[Tensor] | None = list(self.exact) if with_quantized else None

    @torch.no_grad()
    def run(self, index: int, block: nn.Module, stream: str) -> list[Tensor]:
        """Outputs of block ``index`` on one stream, ``exact`` or ``quantized``.

        Raises:
            QigError: a non-finite value appears; names the block and the sample.
        """
        outputs = []
        for calls, x, batch in zip(self._calls, getattr(self, stream), self.batches, strict=True):
            y = calls[index](block, x)
            self._refuse_non_finite(y, batch, index, stream)
            outputs.append(y)
        return outputs

    def advance(self, index: int, exact_block: nn.Module | None, quantized_block: nn.Module | None) -> None:
        """Move the streams behind block ``index``; a stream whose block is ``None`` stays where it is."""
        if exact_block is not None:
            self.exact = self.run(index, exact_block, "exact")
        if quantized_block is not None and self.quantized is not None:
            self.quantized = self.run(index, quantized_block, "quantized")

    def site_calls(
        self, index: int, block: nn.Module, sites: list[Site], stream: str
    ) -> tuple[dict[str, list[Call]], list[Tensor]]:
        """Run block ``index`` on a stream: calls of each site's inspected module per micro-batch, and the outputs."""
        found: dict[str, list[Call]] = {site.name: [] for site in sites}
        outputs = []
        modules = {site.name: block.get_submodule(site.inspected) for site in sites}
        for calls, x, batch in zip(self._calls, getattr(self, stream), self.batches, strict=True):
            with torch.no_grad(), recording(modules) as recorded:
                y = calls[index](block, x)
            self._refuse_non_finite(y, batch, index, stream)
            outputs.append(y)
            for name, call in recorded.items():
                found[name].append(call)
        return found, outputs

    def flat(self, values: list[Tensor]) -> Tensor:
        """Values ``[batch, tokens]`` of all real tokens, in the order of the calibration set: ``[tokens]`` float32."""
        rows = {
            position: values[i][row][batch.real[row].to(values[i].device)].float().cpu()
            for i, batch in enumerate(self.batches)
            for row, position in enumerate(batch.order)
        }
        return torch.cat([rows[position] for position in sorted(rows)])

    @staticmethod
    def _refuse_non_finite(y: Tensor, batch: CalibrationBatch, index: int, stream: str) -> None:
        finite = torch.isfinite(y).all(dim=-1).cpu() | ~batch.real
        if not bool(finite.all()):
            row = int((~finite.all(dim=1)).nonzero()[0])
            raise QigError(
                f"non-finite hidden states behind block {index} ({stream} stream), sample {batch.ids[row]}; "
                "check the checkpoint and model.dtype (float16 overflows in some models; bfloat16 and float32 do not)"
            )
