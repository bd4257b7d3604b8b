"""How fine the weights are, and the controls that tell which part of a gain is due to which tokens are weighted."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from qig.data.tokens import TokenKind


def modality_means(values: Tensor, kinds: Tensor) -> Tensor:
    """Each sample's values ``[batch, tokens]`` replaced by their mean over its vision and over its text tokens."""
    vision = kinds == TokenKind.VISION
    return _means(values, vision, ~vision & (kinds != TokenKind.PADDING))


def first_means(values: Tensor, kinds: Tensor) -> Tensor:
    """Each sample's values ``[batch, tokens]`` replaced by their mean, but the first token's, which stays.

    Language models turn the first token's activations into massive ones, and look at it wherever nothing else is to be
    looked at; what remains of a gain is due to that token alone.
    """
    first, others = _first(kinds)
    return _means(values, first, others)


def without_first(values: Tensor, kinds: Tensor) -> Tensor:
    """Each sample's values ``[batch, tokens]`` with 0 at its first token, whose share goes to the others in proportion.

    In the block that makes its activations massive that token alone is nearly all of an unweighted error. A sample that
    has weight nowhere else stays as it is.
    """
    first, others = _first(kinds)
    kept = values * others
    total = kept.sum(1, keepdim=True)
    return torch.where(total == 0, values, kept * (1 + (values * first).sum(1, keepdim=True) / total))


def _first(kinds: Tensor) -> tuple[Tensor, Tensor]:
    """Where the first real token of each sample is, and where all others: ``[batch, tokens]`` booleans."""
    real = kinds != TokenKind.PADDING
    first = real & (real.cumsum(1) == 1)
    return first, real & ~first


def _means(values: Tensor, *groups: Tensor) -> Tensor:
    """Values replaced by their means over each group, ``[batch, tokens]`` booleans, per sample; 0 outside of them."""
    result = torch.zeros_like(values)
    for group in groups:
        mean = (values * group).sum(1, keepdim=True) / group.sum(1, keepdim=True).clamp(min=1)
        result += mean * group
    return result


def without_special(values: Tensor, kinds: Tensor) -> Tensor:
    """Values ``[batch, tokens]`` with 0 at the tokens that the chat template added."""
    return values * (kinds != TokenKind.SPECIAL)


def all_tokens(values: Tensor, kinds: Tensor) -> Tensor:
    """Values as they are: special tokens have their own weight."""
    return values


def under_control(kinds: Tensor, granularity: str, control: str) -> Tensor:
    """Kinds ``[batch, tokens]`` as a control is to see them: what the granularity gives no weight is as padding.

    Controls that are about the first token see it where it is, even if it has no weight.
    """
    if granularity != "token":
        return kinds
    weightless = kinds == TokenKind.SPECIAL
    if control in ("first_mean", "without_first"):
        weightless &= ~_first(kinds)[0]
    return kinds.masked_fill(weightless, TokenKind.PADDING)


CONTROLS = {"modality_mean": modality_means, "first_mean": first_means, "without_first": without_first}
"""Controls that look at a sample's values and kinds alone."""
GRANULARITIES = {"modality": modality_means, "token": without_special, "token_special": all_tokens}


def permuted(values: Tensor, kinds: Tensor, names: list[str]) -> Tensor:
    """Values ``[batch, tokens]`` shuffled over the real tokens of each sample.

    ``names``: one a row; the permutation is a function of the name alone, whatever else is in the micro-batch.
    """
    result = values.clone()
    for row, name in enumerate(names):
        real = (kinds[row] != TokenKind.PADDING).nonzero().flatten()
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") >> 1
        order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))
        result[row, real] = values[row, real[order.to(real.device)]]
    return result
