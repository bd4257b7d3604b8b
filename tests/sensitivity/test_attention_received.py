"""Attention received, recomputed by hand from queries and keys on the shipped models."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qig.blockwise.activations import Activations
from qig.blockwise.site import SiteView
from qig.config.schema import AttentionSensitivity
from qig.errors import ModelError
from qig.sensitivity.attention import AttentionReceived
from qig.sensitivity.estimator import WholeModel

CPU = torch.device("cpu")


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions, channel by channel: channel c of the first half turns with channel c of the second."""
    half = x.shape[-1] // 2
    result = torch.empty_like(x)
    for c in range(half):
        a, b = x[..., c], x[..., c + half]
        result[..., c] = a * cos[..., c] - b * sin[..., c]
        result[..., c + half] = b * cos[..., c + half] + a * sin[..., c + half]
    return result


@torch.no_grad()
def received_by_hand(block: nn.Module, x: torch.Tensor, positions, groups: int) -> torch.Tensor:
    """One sample ``x [tokens, channels]`` without padding: ``[tokens]``, mean over query heads and queries."""
    attention = block.self_attn
    size = attention.head_dim
    cos, sin = (value[0] for value in positions)
    q = attention.q_proj(x).unflatten(-1, (-1, size))
    k = attention.k_proj(x).unflatten(-1, (-1, size))
    assert q.shape[1] == groups * k.shape[1]
    tokens = len(x)
    total = torch.zeros(tokens, dtype=x.dtype)
    for head in range(q.shape[1]):
        queries, keys = rotated(q[:, head], cos, sin), rotated(k[:, head // groups], cos, sin)
        for token in range(tokens):
            similar = keys[: token + 1] @ queries[token] / size**0.5
            grown = torch.exp(similar - similar.max())
            total[: token + 1] += grown / grown.sum()
    return total / (q.shape[1] * tokens)


def estimate(loaded, batches) -> AttentionReceived:
    estimator = AttentionReceived(AttentionSensitivity("attention", "token_special", "sample", "none", 0))
    estimator.prepare(WholeModel(loaded, batches, Activations(CPU)))
    return estimator


def test_probabilities_by_hand_with_padding_and_grouped_heads(shipped, digit_samples, batches_of):
    shipped.model.double()
    (padded,) = batches_of(shipped, digit_samples[:2], 10_000)
    assert not padded.real.all()
    estimator = estimate(shipped, [padded])
    text = shipped.model.config.text_config
    groups = text.num_attention_heads // text.num_key_value_heads
    assert groups > 1
    for batch in batches_of(shipped, digit_samples[:2], 1):
        row, length = padded.ids.index(batch.ids[0]), batch.real.shape[1]
        seen = {}

        def keep(index):
            def hook(_module, _args, kwargs):
                seen[index] = kwargs["hidden_states"], kwargs["position_embeddings"]  # noqa: B023 - read in this turn

            return hook

        handles = [
            shipped.blocks[i].self_attn.register_forward_pre_hook(keep(i), with_kwargs=True) for i in (0, 5)
        ]
        with torch.no_grad():
            shipped.model(**batch.inputs, use_cache=False)
        for handle in handles:
            handle.remove()
        for index, (x, positions) in seen.items():
            expected = received_by_hand(shipped.blocks[index], x[0], positions, groups)
            for site in shipped.architecture.sites:  # both halves of a block use its attention
                view = SiteView(index, 0, shipped.blocks[index], site, None, [], None, [padded.kinds], [])
                own = estimator.scores(view).values[0][row]
                torch.testing.assert_close(own[:length], expected, rtol=1e-5, atol=1e-9, check_dtype=False)
                assert (own[length:] == 0).all()
                assert float(own.sum()) == pytest.approx(1, rel=1e-5)  # every query gives away exactly 1


def test_the_model_is_left_as_it_was(shipped, digit_samples, batches_of):
    before = shipped.model.get_submodule(shipped.architecture.text_model).config._attn_implementation
    estimate(shipped, batches_of(shipped, digit_samples[:1], 1))
    assert before == "sdpa"
    assert shipped.model.get_submodule(shipped.architecture.text_model).config._attn_implementation == before
    assert all(not block.self_attn._forward_hooks for block in shipped.blocks)


def test_an_attention_that_returns_no_probabilities_is_named():
    keep = AttentionReceived(AttentionSensitivity("attention", "token_special", "sample", "none", 0))._keep(0, None)
    for output in (torch.zeros(1, 3, 4), (torch.zeros(1, 3, 4), None)):
        with pytest.raises(ModelError, match="does not return its probabilities"):
            keep(None, (), output)
