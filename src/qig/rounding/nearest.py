"""Round to nearest."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from qig.about import About
from qig.quantization.grid import QuantizedWeight, quantize_weight
from qig.quantization.setting import Setting
from qig.rounding.rounder import LinearInputs, Rounder


class Nearest(Rounder):
    """The nearest point of the setting's grid for every weight."""

    about = About(
        formula="Q(w)",
        cost="0",
        needs="nothing",
        source="-",
    )

    def round(
        self, linears: Mapping[str, nn.Linear], setting: Setting, inputs: LinearInputs | None
    ) -> dict[str, QuantizedWeight]:
        return {name: quantize_weight(linear.weight, setting.weights) for name, linear in linears.items()}
