"""A decoder block of a few channels, and the same functions written out by hand on weights given as a dict."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

HEADS = 2


class Attention(nn.Module):
    """Causal self-attention without positions; returns a tuple as the real classes do."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in "qkvo":
            setattr(self, f"{name}_proj", nn.Linear(channels, channels, bias=name != "o"))

    def forward(self, x: Tensor, **_kwargs) -> tuple[Tensor, None]:
        q, k, v = (self._heads(linear(x)) for linear in (self.q_proj, self.k_proj, self.v_proj))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).flatten(2)), None

    @staticmethod
    def _heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


class MLP(nn.Module):
    def __init__(self, channels: int, wide: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(channels, wide, bias=False)
        self.up_proj = nn.Linear(channels, wide, bias=False)
        self.down_proj = nn.Linear(wide, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, channels: int = 8, wide: int = 12, seed: int = 0) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(channels)
        self.self_attn = Attention(channels)
        self.post_attention_layernorm = nn.RMSNorm(channels)
        self.mlp = MLP(channels, wide)
        generator = torch.Generator().manual_seed(seed)
        self.double().requires_grad_(False)
        for name, parameter in self.named_parameters():
            if "norm" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)


def weights_of(block: nn.Module) -> dict[str, Tensor]:
    """``{"q": ..., "q.bias": ...}`` of every linear, by the letters before ``_proj``."""
    found = {}
    for name, module in block.named_modules():
        if isinstance(module, nn.Linear):
            short = name.rpartition(".")[2].removesuffix("_proj")
            found[short] = module.weight.detach()
            if module.bias is not None:
                found[short + ".bias"] = module.bias.detach()
    return found


def apply(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    y = x @ weights[name].T
    return y + weights[name + ".bias"] if name + ".bias" in weights else y


def mlp(x: Tensor, weights: dict[str, Tensor], x_in: Tensor | None = None) -> Tensor:
    """``x_in``, if given, is what gate and up see instead of x."""
    x = x if x_in is None else x_in
    gate = apply(x, weights, "gate")
    return apply(gate / (1 + torch.exp(-gate)) * apply(x, weights, "up"), weights, "down")


def attention(x: Tensor, weights: dict[str, Tensor], x_in: Tensor | None = None) -> Tensor:
    """Written with explicit loops over heads and an explicit softmax."""
    x = x if x_in is None else x_in
    q, k, v = (apply(x, weights, name) for name in "qkv")
    tokens, channels = x.shape[-2:]
    size = channels // HEADS
    future = torch.triu(torch.ones(tokens, tokens, dtype=torch.bool), 1)
    mixed = []
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        similar = q[..., part] @ k[..., part].transpose(-1, -2) / size**0.5
        similar = similar.masked_fill(future, -torch.inf)
        grown = torch.exp(similar - similar.amax(-1, keepdim=True).detach())
        mixed.append(grown / grown.sum(-1, keepdim=True) @ v[..., part])
    return apply(torch.cat(mixed, -1), weights, "o")


def linear(name: str):
    def f(x: Tensor, weights: dict[str, Tensor], x_in: Tensor | None = None) -> Tensor:
        return apply(x if x_in is None else x_in, weights, name)

    return f


# Inspected module of each site, and the linears that it contains.
FUNCTIONS = {
    "attn_in": (attention, ("q", "k", "v", "o")),
    "attn_out": (linear("o"), ("o",)),
    "mlp_in": (mlp, ("gate", "up", "down")),
    "mlp_out": (linear("down"), ("down",)),
}
CONSUMERS = {"attn_in": ("q", "k", "v"), "attn_out": ("o",), "mlp_in": ("gate", "up"), "mlp_out": ("down",)}
