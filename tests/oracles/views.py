"""Places of the toy block (float64) as searches and estimators see them: padded micro-batches, two streams."""

from __future__ import annotations

import re

import torch

from oracles import toy
from oracles.grid import fake_weight
from qig.blockwise.capture import Call
from qig.blockwise.site import SiteView
from qig.data.tokens import TokenKind
from qig.models.architectures import LLAMA_SITES
from qig.quantization.grid import ActivationGrid, WeightGrid
from qig.quantization.setting import Setting

LINEARS = re.compile(r"(self_attn\.(q|k|v|o)|mlp\.(gate|up|down))_proj")
SETTINGS = {
    "w3a16": Setting(WeightGrid(3, False, 4), None, LINEARS),
    "w4a8": Setting(WeightGrid(4, True, None), ActivationGrid(8), LINEARS),
}
SITES = {site.name: site for site in LLAMA_SITES}
LENGTHS = ((5, 3), (4, 4))
SAMPLES = [("a", "b"), ("c", "d")]  # of each micro-batch


def make_view(site: str, setting: str, seed: int = 0) -> tuple[SiteView, list[torch.Tensor]]:
    """A place some of whose channels are large, and token weights for it."""
    width = 12 if site == "mlp_out" else 8
    generator = torch.Generator().manual_seed(seed)
    channels = torch.exp(torch.randn(width, generator=generator, dtype=torch.float64))
    kinds = [torch.tensor([[3] * n + [0] * (max(rows) - n) for n in rows], dtype=torch.uint8) for rows in LENGTHS]
    calls = [Call(torch.randn(*k.shape, width, generator=generator, dtype=torch.float64) * channels, {}) for k in kinds]
    drifted = [Call(c.x + 0.2 * torch.randn(c.x.shape, generator=generator, dtype=torch.float64), {}) for c in calls]
    view = SiteView(0, 0, toy.Block(seed=seed), SITES[site], SETTINGS[setting], calls, drifted, kinds, SAMPLES)
    return view, [torch.rand(k.shape, generator=generator) ** 4 * (k != 0) for k in kinds]


class Toy:
    """One block, one bit setting, random inputs ``[batch, tokens, channels]`` and their quantized-stream versions."""

    def __init__(self, setting: str = "w3a16", lengths=((5, 5), (7, 4)), seed: int = 0) -> None:
        self.block, self.setting = toy.Block(seed=seed), SETTINGS[setting]
        self.weights = toy.weights_of(self.block)
        grid = self.setting.weights
        self.quantized = {
            name: value if name.endswith(".bias") else torch.from_numpy(
                fake_weight(value.numpy(), grid.bits, grid.symmetric, grid.group_size)
            )
            for name, value in self.weights.items()
        }  # fmt: skip
        generator = torch.Generator().manual_seed(seed + 100)
        kinds = (TokenKind.SPECIAL, TokenKind.VISION, TokenKind.VISION, TokenKind.PROMPT, TokenKind.ANSWER)
        self.kinds = [torch.zeros(len(rows), max(rows), dtype=torch.uint8) for rows in lengths]
        for batch, rows in zip(self.kinds, lengths, strict=True):
            for row, length in enumerate(rows):
                batch[row, :length] = torch.tensor([kinds[i % 5] for i in range(length)], dtype=torch.uint8)

        def random(shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        self.inputs = {
            width: [random((*batch.shape, width)) for batch in self.kinds] for width in (8, 12)
        }  # fmt: skip
        self.drifted = {width: [x + 0.4 * random(x.shape) for x in xs] for width, xs in self.inputs.items()}

    def view(self, site: str) -> SiteView:
        width = 12 if site == "mlp_out" else 8
        calls = [Call(x, {}) for x in self.inputs[width]]
        drifted = [Call(x, {}) for x in self.drifted[width]]
        samples = [tuple(f"{i}-{row}" for row in range(len(kinds))) for i, kinds in enumerate(self.kinds)]
        return SiteView(0, 0, self.block, SITES[site], self.setting, calls, drifted, self.kinds, samples)

    def samples(self, site: str):
        """``(micro-batch, row, x, x_q)`` of each sample, padding cut off."""
        width = 12 if site == "mlp_out" else 8
        for batch, kinds in enumerate(self.kinds):
            for row, length in enumerate((kinds != 0).sum(1).tolist()):
                yield batch, row, self.inputs[width][batch][row, :length], self.drifted[width][batch][row, :length]
