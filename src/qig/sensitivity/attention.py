"""Attention received: how much the other tokens of the sample look at a token, mean over heads and queries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from qig.about import About
from qig.blockwise.site import SiteView
from qig.blockwise.streams import Streams
from qig.data.calibration import CalibrationBatch
from qig.errors import ModelError
from qig.models.loading import LoadedModel
from qig.sensitivity.estimator import Estimator, Scores, WholeModel


class AttentionReceived(Estimator):
    """Both halves of a block use the attention of that block; queries at padding do not count."""

    about = About(
        formula="mean over heads and real queries of the attention probability that key t receives",
        cost="one forward pass of the whole model per micro-batch, for all sites",
        needs="an attention module that returns its probabilities",
        source="QIG's Table 1, arXiv 2603.17809",
    )

    def prepare(self, whole: WholeModel) -> None:
        loaded, batches = whole.loaded, whole.batches
        self.received: list[list[Tensor]] = [[] for _ in loaded.blocks]
        with _probabilities(loaded):
            streams = Streams(loaded, batches, whole.activations, with_quantized=False)
            for index in range(len(loaded.blocks)):
                with loaded.block(index) as block:
                    attention = block.get_submodule(loaded.architecture.attention)
                    handle = attention.register_forward_hook(self._keep(index, iter(batches)))
                    try:
                        streams.advance(index, block, None)
                    finally:
                        handle.remove()

    def _keep(self, index: int, batches: Iterator[CalibrationBatch]):
        def on_forward(_module, _args, output) -> None:
            probabilities = output[1] if isinstance(output, tuple) and len(output) > 1 else None
            if probabilities is None:
                raise ModelError("this architecture's attention module does not return its probabilities")
            real = next(batches).real.to(probabilities.device)
            queries = real[:, None, :, None].float()  # [batch, heads, queries, keys]
            mean = (probabilities.float() * queries).sum((1, 2)) / (probabilities.shape[1] * real.sum(1, keepdim=True))
            self.received[index].append(mean)

        return on_forward

    def scores(self, view: SiteView) -> Scores:
        return Scores(self.received[view.index])


@contextmanager
def _probabilities(loaded: LoadedModel) -> Iterator[None]:
    """Within the context the model computes attention the plain way, which is the one that returns probabilities."""
    before = loaded.model.get_submodule(loaded.architecture.text_model).config._attn_implementation
    loaded.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        loaded.model.set_attn_implementation(before)
