"""What happens to one decoder block: scales are found and folded site by site, then its linears are rounded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qig.blockwise.activations import Mapped
from qig.blockwise.capture import Call
from qig.blockwise.methods import Methods
from qig.blockwise.site import SiteView
from qig.blockwise.streams import Streams
from qig.blockwise.timing import Stopwatch
from qig.equalization.equalizer import Scale
from qig.errors import ConfigError, QigError
from qig.finite import located, refuse_non_finite
from qig.models.architectures import Site
from qig.models.folding import fold, foldable
from qig.quantization.linear import replace, substituted
from qig.rounding.rounder import LinearInputs
from qig.sensitivity.weights import TokenWeights, token_weights


class BlockWork:
    """One block on its way to the quantized model; afterwards ``block`` is quantized in place.

    Attributes:
        findings: token weights ``block.I.SITE`` (flat over real tokens) and scales ``scale.I.SITE``.
        records: what was found at each site, for the run record.
    """

    def __init__(
        self, index: int, block: nn.Module, sites: tuple[Site, ...], methods: Methods, streams: Streams
    ) -> None:
        self.index = index
        self.block = block
        self.methods = methods
        self.streams = streams
        self.watch = Stopwatch(streams.activations.device)
        self.findings: dict[str, Tensor] = {}
        self.records: list[dict[str, Any]] = []
        self._selected = methods.setting.selected(block)
        self._sites = [site for site in sites if any(name in self._selected for name in site.consumers)]
        self._weights: dict[str, TokenWeights] = {}
        self._scales: dict[str, Scale] = {}
        self._calls: dict[str, list[Call]] = {}

    def run(self) -> None:
        """Quantize the block and move both streams behind it."""
        methods = self.methods
        equalized = [s for s in self._sites if s.name in methods.sites and foldable(self.block, s, methods.share)]
        if methods.equalizer is not None and not equalized:
            raise ConfigError(self._nothing_to_scale())
        looked_at = self._sites if self.methods.rounder.needs_inputs else equalized
        with self.watch("capture"):
            self._calls, outputs = self.streams.site_calls(self.index, self.block, looked_at, "exact")
        for position, site in enumerate(looked_at):
            view = self._view(site, self.index * len(looked_at) + position)
            searched = site in equalized and self.methods.equalizer is not None
            if self.methods.rounder.needs_inputs or (searched and self.methods.equalizer.needs_weights):
                self._attribute(view)
            if searched:
                self._equalize(view)
            self.records.append(self._record(site))
        with self.watch("rounding"):
            self._round()
        with self.watch("propagation"):
            self.streams.exact = outputs
            self.streams.advance(self.index, None, self.block)

    def _nothing_to_scale(self) -> str:
        """Without a scale the method would be its rounding alone, under its own name."""
        named = ", ".join(self.methods.sites)
        there = [s.name for s in self._sites if foldable(self.block, s, self.methods.share)]
        return (
            f"equalization.sites={named}, quant.linears={self.methods.setting.linears.pattern}: none of these inputs "
            f"can be scaled at block {self.index}; those that can be: {', '.join(there) or 'none'}; attn_out under "
            "grouped-query attention: with equalization.share_attn_out=true"
        )

    def _view(self, site: Site, ordinal: int) -> SiteView:
        quantized = None
        if self.methods.views_need_quantized_stream:
            with self.watch("propagation"), self._rounded_to_nearest():
                quantized = self._quantized_inputs(site)
        streams = self.streams
        samples = [batch.ids for batch in streams.batches]
        calls, setting = self._calls[site.name], self.methods.setting
        place = streams.activations
        return SiteView(
            self.index, ordinal, self.block, site, setting, calls, quantized, streams.kinds, samples, place
        )

    def _quantized_inputs(self, site: Site) -> list[Call]:
        later = self._sites[self._sites.index(site) :]
        return self.streams.site_inputs(self.index, self.block, site, tuple(later), "quantized")

    def _attribute(self, view: SiteView) -> None:
        with self.watch("attribution"):
            weights = token_weights(self.methods.estimator, view, self.methods.sensitivity)
        self._weights[view.site.name] = weights
        self.findings[f"block.{self.index}.{view.site.name}"] = self.streams.flat(weights.values)

    def _equalize(self, view: SiteView) -> None:
        weights = self._weights.get(view.site.name)
        with self.watch("search"):
            scale = self.methods.equalizer.scale(view, weights.values if weights else None)
            with located(self.index, view.site.name):
                refuse_non_finite("scales", scale.value)
            if (least := float(scale.value.min())) <= 0:
                raise QigError(f"{view.place}: a channel's scale is {least:g}; expected more than 0")
            fold(self.block, view.site, scale.value)
        self._scales[view.site.name] = scale
        self.findings[f"scale.{self.index}.{view.site.name}"] = scale.value.cpu()

    def _round(self) -> None:
        """Site by site, so that a method that reads the quantized stream sees what the earlier sites now produce."""
        rounder = self.methods.rounder
        outside = set(self._selected)
        for site in self._sites:
            linears = {name: self._selected[name] for name in site.consumers if name in self._selected}
            if not linears:
                continue
            with located(self.index, site.name):
                inputs = self._inputs(site) if rounder.needs_inputs else None
                self._install(rounder.round(linears, self.methods.setting, inputs))
            outside -= set(linears)
        if outside and rounder.needs_inputs:
            raise ConfigError(f"quant.linears selects {', '.join(sorted(outside))}, whose inputs no site describes")
        if outside:
            with located(self.index):
                linears = {name: self._selected[name] for name in outside}
                self._install(rounder.round(linears, self.methods.setting, None))

    def _inputs(self, site: Site) -> LinearInputs:
        scale = self._scales.get(site.name)
        calls, quantized = self._calls[site.name], None

        def folded(i: int) -> Tensor:
            if scale is None:
                return calls[i].x
            x = calls[i].x
            quotient = x.to(torch.promote_types(x.dtype, torch.float32)) / scale.value  # the weights took s unrounded
            batch = self.streams.batches[i]
            # In the model's own type it may be out of range.
            refuse_non_finite("scaled inputs", quotient.to(x.dtype), batch.ids, batch.real)
            return quotient

        if self.methods.rounder.needs_quantized_stream:
            found = self._quantized_inputs(site)
            quantized = Mapped(lambda i: found[i].x, len(found))
        return LinearInputs(Mapped(folded, len(calls)), quantized, self._weights[site.name].values)

    def _install(self, rounded: dict) -> None:
        for name, quantized in rounded.items():
            linear = self._selected[name]
            # A weight that is not a number makes its group's scale one that is not.
            refuse_non_finite(f"rounded weights of {name}", quantized.scale)
            replace(self.block, name, self.methods.setting.rounded(quantized, linear.bias, linear.weight.dtype))

    @contextmanager
    def _rounded_to_nearest(self) -> Iterator[None]:
        """All linears of the block on the grid with the scales folded so far: what produces x_q inside the block."""
        setting = self.methods.setting
        with substituted(self.block, {name: setting.nearest(linear) for name, linear in self._selected.items()}):
            yield

    def _record(self, site: Site) -> dict[str, Any]:
        weights, scale = self._weights.get(site.name), self._scales.get(site.name)
        return {
            "block": self.index,
            "site": site.name,
            "estimator": self.methods.sensitivity.kind if weights else None,
            "fallback": weights.scores.fallback if weights else None,
            "completeness": weights.scores.completeness if weights else None,
            "nodes": weights.scores.nodes if weights else None,
            "exponents": scale.exponents if scale else None,
            "losses": scale.losses if scale else None,
            "exponent": scale.exponent if scale else None,
            "learned_loss": scale.learned_loss if scale else None,
        }
