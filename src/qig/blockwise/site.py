"""One equalization site as the methods see it: what flows into it, in either stream."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from qig.blockwise.activations import Activations, Kept, brought
from qig.blockwise.capture import Call
from qig.data.tokens import TokenKind
from qig.finite import located, refuse_non_finite
from qig.models.architectures import Site
from qig.quantization.setting import Setting


@dataclass(frozen=True)
class SiteView:
    """One equalization site of one block, with everything that flows into its inspected module f.

    Attributes:
        index: number of the block.
        ordinal: number of the site among all that the pass looks at.
        block: the block in full precision; scales found at earlier sites are folded in.
        calls: calls of f in the full-precision stream, one per micro-batch, with hidden states
            ``[batch, tokens, channels]``.
        quantized_calls: the same in the quantized stream; ``None`` unless the estimator or the
            search asked for them.
        kinds: ``TokenKind`` of each token, ``[batch, tokens]``, one per micro-batch.
        samples: ids of the samples, one per row of each micro-batch.
        activations: where the pass keeps what is large; ``None``: on the device.
    """

    index: int
    ordinal: int
    block: nn.Module
    site: Site
    setting: Setting
    calls: list[Call]
    quantized_calls: list[Call] | None
    kinds: list[Tensor]
    samples: list[tuple[str, ...]]
    activations: Activations | None = None

    @property
    def place(self) -> str:
        """Block and site, for messages."""
        return f"block {self.index}, {self.site.name}"

    @cached_property
    def real(self) -> list[Tensor]:
        """Boolean ``[batch, tokens]`` per micro-batch: not padding."""
        return [kinds != TokenKind.PADDING for kinds in self.kinds]

    def shelf(self, tensors: Iterable[Tensor]) -> Sequence[Tensor]:
        """Tensors per micro-batch, kept where the pass keeps its activations."""
        return list(tensors) if self.activations is None else self.activations.shelf(tensors)

    @cached_property
    def outputs(self) -> Outputs:
        """What f makes of its calls in full precision, ``[batch, tokens, channels]`` per micro-batch."""
        return Outputs(self)

    @property
    def f(self) -> nn.Module:
        """The inspected module; looked up anew, so that a substitution is seen."""
        return self.block.get_submodule(self.site.inspected)

    @property
    def readers(self) -> list[str]:
        """Names of f's own linears that read its input: what they give is known before f is called."""
        name = self.site.inspected
        return [consumer for consumer in self.site.consumers if consumer == name or consumer.startswith(f"{name}.")]

    def quantized_linears(self, activations: bool) -> dict[str, nn.Module]:
        """All linears of f on the grid, by name; their inputs only if ``activations``."""
        return self._with_activations if activations else self._weight_only

    @cached_property
    def _weight_only(self) -> dict[str, nn.Module]:
        return {name: self.setting.weight_only(linear) for name, linear in self._linears().items()}

    @cached_property
    def _with_activations(self) -> dict[str, nn.Module]:
        return {name: self.setting.nearest(linear) for name, linear in self._linears().items()}

    def _linears(self) -> dict[str, nn.Linear]:
        inside = self.site.inspected + "."
        selected = self.setting.selected(self.block).items()
        return {name: linear for name, linear in selected if name == self.site.inspected or name.startswith(inside)}


class Outputs(Sequence[Tensor]):
    """Exact outputs of a site's f, which attribution and search share: each is computed once, or noted by who has it.

    They are those of the block as it was then: a view is done with when its block changes. They wait where the pass
    keeps its activations.

    Raises:
        NonFiniteError: an output is not a number; names block, site and sample.
    """

    def __init__(self, view: SiteView) -> None:
        # A copy: a cycle with the view would stay, with all that it holds, until Python looks for cycles.
        self._view = replace(view)
        self._known: dict[int, Tensor | Kept] = {}

    def note(self, index: int, y: Tensor) -> None:
        """Keep the output of a micro-batch, which must be f's at that micro-batch's call, up to float32's
        rounding: a search compares with it."""
        view = self._view
        with located(view.index, view.site.name):
            refuse_non_finite("outputs", y, view.samples[index], view.real[index])
        self._known[index] = y if view.activations is None else view.activations.keep(y)

    def __getitem__(self, index: int) -> Tensor:
        if not 0 <= index < len(self):
            raise IndexError(index)
        if index not in self._known:
            with torch.no_grad():
                self.note(index, self._view.calls[index](self._view.f))
        return brought(self._known[index])

    def __len__(self) -> int:
        return len(self._view.calls)
