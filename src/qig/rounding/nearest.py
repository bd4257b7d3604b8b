"""Round to nearest."""

from __future__ import annotations

from torch import nn

from qig.quantization.grid import QuantizedWeight, quantize_weight
from qig.quantization.setting import Setting


def nearest(linear: nn.Linear, setting: Setting) -> QuantizedWeight:
    """The nearest point of the setting's grid for every weight."""
    return quantize_weight(linear.weight, setting.weights)
