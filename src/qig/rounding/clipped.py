"""Round to nearest after clipping each group's range, as AWQ does behind its scale search (arXiv 2306.00978)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from qig.about import About
from qig.finite import refuse_non_finite
from qig.quantization.grid import QuantizedWeight, WeightGrid, quantize_weight
from qig.quantization.setting import Setting
from qig.rounding.rounder import LinearInputs, Rounder, weighted_moment


class ClippedNearest(Rounder):
    """Per group the share of its largest magnitude that gives the least squared output error of that group alone.

    The error of a group g is ``d_g^T H_gg d_g`` with ``d = W - Q(clip(W))`` and H the weighted second moment of the
    exact stream's inputs. Query and key projections are left alone, as AWQ leaves them: their product is what counts.
    """

    about = About(
        formula="Q(clip(w, -c, c)), c = argmin of d_g^T H_gg d_g per group, d = Q(clip(w)) - w; not for q and k",
        cost="0 (1 matrix product per candidate, 10)",
        needs="token weights",
        source="AWQ's clipping, arXiv 2306.00978 and its code",
    )
    needs_inputs = True

    def round(
        self, linears: Mapping[str, nn.Linear], setting: Setting, inputs: LinearInputs | None
    ) -> dict[str, QuantizedWeight]:
        moment = weighted_moment(inputs.exact, inputs.exact, inputs.weights).float()
        refuse_non_finite("second moment", moment)
        found = {}
        for name, linear in linears.items():
            weight = linear.weight.float()
            if not any(part in name for part in self.config.skip):
                weight = self._clipped(weight, moment, setting.weights)
            found[name] = quantize_weight(weight, setting.weights)
        return found

    def _clipped(self, weight: Tensor, moment: Tensor, grid: WeightGrid) -> Tensor:
        size = grid.group_size or weight.shape[1]
        groups = [slice(start, start + size) for start in range(0, weight.shape[1], size)]
        return torch.cat([self._clipped_group(weight[:, group], moment[group, group], grid) for group in groups], dim=1)

    def _clipped_group(self, weight: Tensor, moment: Tensor, grid: WeightGrid) -> Tensor:
        largest = weight.abs().amax(1, keepdim=True)
        one_group = WeightGrid(grid.bits, grid.symmetric, None)
        best, least = weight, None
        for step in range(self.config.points):
            share = 1 - self.config.max_shrink * step / self.config.points
            clipped = weight.clamp(-largest * share, largest * share)
            difference = quantize_weight(clipped, one_group).dequantize() - weight
            error = ((difference @ moment) * difference).sum(1, keepdim=True)
            if least is None:
                least = error
                continue
            better = error < least
            best, least = torch.where(better, clipped, best), torch.where(better, error, least)
        return best
