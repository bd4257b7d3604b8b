"""InternLM2's packed attention and its block, against an oracle that reads the packed layout."""

from __future__ import annotations

import pytest
import torch

from models.internvl2.conftest import converted_into
from oracles import internvl2 as oracle


def hidden_states(tokens: int, channels: int) -> torch.Tensor:
    return torch.randn(tokens, channels, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@torch.no_grad()
def native_block(model, layer: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the attention and the whole decoder block make of ``x [tokens, channels]``."""
    text = model.model.language_model
    positions = torch.arange(len(x))[None]
    rotary = text.rotary_emb(x[None], positions)
    mask = torch.full((1, 1, len(x), len(x)), -torch.inf, dtype=x.dtype).triu(1)
    block = text.layers[layer]
    arguments = {"position_embeddings": rotary, "attention_mask": mask, "position_ids": positions}
    attention = block.self_attn(x[None], **arguments)[0]
    output = block(x[None], **arguments)
    return attention[0], (output[0] if isinstance(output, tuple) else output)[0]


@pytest.mark.parametrize("layer", [0, 1])
def test_attention_and_block_from_the_packed_layout(published, layer):
    case = published("internlm2")
    x = hidden_states(11, 48)
    attention, block = native_block(case.model(), layer, x)
    text = case.settings["llm_config"]
    torch.testing.assert_close(
        attention, oracle.internlm2_attention(case.tensors, text, layer, x), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(block, oracle.internlm2_block(case.tensors, text, layer, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("heads, groups", [(6, 6), (6, 3), (6, 1), (2, 1)])
def test_every_grouping(tmp_path, heads, groups):
    changes = {"num_attention_heads": heads, "num_key_value_heads": groups}
    case = converted_into(tmp_path, llm_config=changes)
    x = hidden_states(7, 48)
    attention, _ = native_block(case.model(), 1, x)
    expected = oracle.internlm2_attention(case.tensors, case.settings["llm_config"], 1, x)
    torch.testing.assert_close(attention, expected, rtol=1e-5, atol=1e-5)


def test_biases_are_unpacked_like_weights(tmp_path):
    case = converted_into(tmp_path, llm_config={"bias": True})
    x = hidden_states(7, 48)
    attention, _ = native_block(case.model(), 0, x)
    expected = oracle.internlm2_attention(case.tensors, case.settings["llm_config"], 0, x)
    torch.testing.assert_close(attention, expected, rtol=1e-5, atol=1e-5)


def test_dynamic_rope_beyond_the_trained_length(tmp_path):
    case = converted_into(tmp_path, llm_config={"max_position_embeddings": 8})
    x, text = hidden_states(20, 48), case.settings["llm_config"]
    assert oracle.rope_base(text, 20) > 3 * text["rope_theta"]
    attention, _ = native_block(case.model(), 0, x)
    expected = oracle.internlm2_attention(case.tensors, text, 0, x)
    torch.testing.assert_close(attention, expected, rtol=1e-5, atol=1e-5)
    unscaled = oracle.internlm2_attention(case.tensors, text | {"rope_scaling": None}, 0, x)
    assert float((unscaled - expected).abs().max()) > 1e-3
