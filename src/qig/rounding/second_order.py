"""GPTQ and GPTAQ on the inputs of a site, with token weights in their second moments."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from qig.about import About
from qig.finite import refuse_non_finite
from qig.quantization.grid import QuantizedWeight
from qig.quantization.setting import Setting
from qig.rounding.gptq import gptq
from qig.rounding.rounder import LinearInputs, Rounder, uses, weighted_moment


class Gptq(Rounder):
    """``H = sum lambda x x^T`` over the inputs of the configured stream; one H for all linears of a site."""

    about = About(
        formula=(
            "column by column: Q(w_q); the columns F behind q take up (w_q - Q(w_q)) H_qF H_FF^-1, H = "
            "sum_{n,t} lambda x x^T"
        ),
        cost="0 (1 Cholesky factorisation per site, 1 matrix product per site and 128 columns)",
        needs="token weights; the quantized stream if `stream: quantized`",
        source="GPTQ, arXiv 2210.17323; weighted as in QIG's Table 5",
    )
    needs_inputs = True

    @property
    def needs_quantized_stream(self) -> bool:
        return self.config.stream == "quantized"

    def round(
        self, linears: Mapping[str, nn.Linear], setting: Setting, inputs: LinearInputs | None
    ) -> dict[str, QuantizedWeight]:
        x = uses(self.config.stream, inputs)
        hessian = weighted_moment(x, x, inputs.weights)
        # No row of a weight enters another's integers: the linears are one matrix, factorised and walked through once.
        weights = [linear.weight for linear in linears.values()]
        rounded = gptq(
            torch.cat(weights),
            hessian,
            setting.weights,
            damping=self.config.damping,
            block=self.config.block,
            order_by_activation=self.config.order_by_activation,
            static_groups=self.config.static_groups,
            asymmetry=self.asymmetry(inputs, hessian),
        )
        return dict(zip(linears, rounded.split([len(weight) for weight in weights]), strict=True))

    def asymmetry(self, inputs: LinearInputs, hessian: Tensor) -> Tensor | None:
        return None


class Gptaq(Gptq):
    """GPTQ that aims at the full-precision stream's output: x in H is the quantized stream's, the target ``W x~``.

    With ``asymmetry: a`` the target is ``W (x + a (x~ - x))``.
    """

    about = About(
        formula=(
            "GPTQ, and the columns F behind q also take up w_q A_qF H_FF^-1, A = a sum_{n,t} lambda (x~ - "
            "x) x^T with x~ exact, x quantized, a = rounding.asymmetry"
        ),
        cost="GPTQ's",
        needs="token weights; the quantized stream",
        source="GPTAQ, arXiv 2504.02692 (there a = 1; its authors' code: 0.25)",
    )
    needs_quantized_stream = True

    def asymmetry(self, inputs: LinearInputs, hessian: Tensor) -> Tensor | None:
        """``a sum lambda (x~ - x) x^T``; the streams are not subtracted, which in 16 bits would round."""
        asymmetry = weighted_moment(inputs.exact, inputs.quantized, inputs.weights) - hessian
        refuse_non_finite("asymmetry of the streams", asymmetry)
        return self.config.asymmetry * asymmetry
