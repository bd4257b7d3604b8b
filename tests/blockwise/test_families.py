"""Every published family: executing it block by block is its forward pass, whatever the samples look like."""

from __future__ import annotations

import pytest
import torch

from families.conversations import CASES, padded
from families.table import FAMILIES
from qig.blockwise.streams import Streams
from qig.config.schema import Model, Outliers
from qig.models.loading import load
from qig.quantization.linear import FakeQuantLinear

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def loaded_family(family_checkpoint):
    """``loaded_family(name, **changes)`` in float32."""

    def make(name: str, **changes):
        path = str(family_checkpoint(name, **changes))
        return load(Model(name, path, "float32", Outliers(0.0, 0)), CPU)

    return make


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request, loaded_family):
    return loaded_family(request.param)


@torch.no_grad()
def logits_block_by_block(loaded, batch, changed=lambda block: block) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the exact stream, and of the stream through the changed blocks, which stay in the model."""
    streams = Streams(loaded, [batch], CPU, with_quantized=True)
    for index, block in enumerate(loaded.blocks):
        streams.advance(index, block, None)
        streams.advance(index, None, changed(block))
    text_model = loaded.model.get_submodule(loaded.architecture.text_model)
    exact, quantized = (text_model.norm(stream[0]) for stream in (streams.exact, streams.quantized))
    return loaded.model.lm_head(exact), loaded.model.lm_head(quantized)


def with_coarse_mlp(block: torch.nn.Module) -> torch.nn.Module:
    down = block.mlp.down_proj
    block.mlp.down_proj = FakeQuantLinear((down.weight * 8).round() / 8, None, activation_bits=8)
    return block


@torch.no_grad()
def logits_of(loaded, batch) -> torch.Tensor:
    return loaded.model(**batch.inputs, use_cache=False).logits


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("case", CASES)
def test_logits_block_by_block_are_those_of_the_forward_pass(loaded, case, side):
    batch = padded(loaded, CASES[case], side)
    expected = logits_of(loaded, batch)
    assert torch.isfinite(expected[batch.real]).all()
    exact, quantized = logits_block_by_block(loaded, batch)
    assert torch.equal(exact, expected) and torch.equal(quantized, expected)


@pytest.mark.parametrize("case", ["sizes", "several images"])
@pytest.mark.parametrize("name", FAMILIES)
def test_quantized_stream_is_the_forward_pass_of_the_quantized_model(loaded_family, name, case):
    loaded = loaded_family(name)
    batch = padded(loaded, CASES[case], "right")
    before = logits_of(loaded, batch)
    exact, quantized = logits_block_by_block(loaded, batch, with_coarse_mlp)
    assert torch.equal(exact, before)
    assert torch.equal(quantized, logits_of(loaded, batch)) and not torch.allclose(quantized, before)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl"])
def test_blocks_with_a_sliding_window_have_a_mask_of_their_own(loaded_family, name):
    windowed = loaded_family(name, use_sliding_window=True, sliding_window=16, max_window_layers=1)
    batch = padded(windowed, CASES["sizes"], "right")
    assert windowed.model.config.text_config.layer_types == ["full_attention", *["sliding_attention"] * 2]
    expected = logits_of(windowed, batch)
    assert torch.equal(logits_block_by_block(windowed, batch)[0], expected)
    assert not torch.allclose(expected, logits_of(loaded_family(name), batch))
