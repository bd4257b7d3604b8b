"""Every published family: executing it block by block is its forward pass, whatever the samples look like.

The blocks come in one at a time from the published files; the forward pass is that of the model as transformers loads
it, without anything of ours.
"""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForImageTextToText

from families.conversations import CASES, padded
from families.table import FAMILIES
from qig.blockwise.activations import Activations
from qig.blockwise.streams import Streams
from qig.config.schema import Model, Outliers
from qig.models.loading import open_model
from qig.quantization.grid import ActivationGrid
from qig.quantization.linear import FakeQuantLinear

CPU = torch.device("cpu")


def opened(folder):
    return open_model(Model("x", str(folder), "float32", Outliers(0.0, 0)), CPU)


def as_transformers_loads(folder):
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module", params=FAMILIES)
def case_of_family(request, family_checkpoint):
    folder = family_checkpoint(request.param)
    return opened(folder), as_transformers_loads(folder)


@torch.no_grad()
def logits_block_by_block(loaded, batch, changed=lambda block: block) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the exact stream, and of the stream through the changed blocks."""
    streams = Streams(loaded, [batch], Activations(CPU), with_quantized=True)
    for index in range(len(loaded.blocks)):
        with loaded.block(index) as block:
            streams.advance(index, block, None)
            streams.advance(index, None, changed(block))
    text_model = loaded.model.get_submodule(loaded.architecture.text_model)
    with loaded.frame():
        exact, quantized = (loaded.model.lm_head(text_model.norm(x[0])) for x in (streams.exact, streams.quantized))
    return exact, quantized


def with_coarse_mlp(block: torch.nn.Module) -> torch.nn.Module:
    down = block.mlp.down_proj
    block.mlp.down_proj = FakeQuantLinear((down.weight * 8).round() / 8, None, activations=ActivationGrid(8))
    return block


@torch.no_grad()
def logits_of(model, batch) -> torch.Tensor:
    return model(**batch.inputs, use_cache=False).logits


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("case", CASES)
def test_logits_block_by_block_are_those_of_the_forward_pass(case_of_family, case, side):
    loaded, model = case_of_family
    batch = padded(loaded, CASES[case], side)
    expected = logits_of(model, batch)
    assert torch.isfinite(expected[batch.real]).all()
    exact, quantized = logits_block_by_block(loaded, batch)
    assert torch.equal(exact, expected) and torch.equal(quantized, expected)


@pytest.mark.parametrize("case", ["sizes", "several images"])
@pytest.mark.parametrize("name", FAMILIES)
def test_quantized_stream_is_the_forward_pass_of_the_quantized_model(family_checkpoint, name, case):
    loaded, model = opened(family_checkpoint(name)), as_transformers_loads(family_checkpoint(name))
    batch = padded(loaded, CASES[case], "right")
    before = logits_of(model, batch)
    exact, quantized = logits_block_by_block(loaded, batch, with_coarse_mlp)
    for block in model.get_submodule(loaded.architecture.text_model).layers:
        with_coarse_mlp(block)
    assert torch.equal(exact, before)
    assert torch.equal(quantized, logits_of(model, batch)) and not torch.allclose(quantized, before)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl"])
def test_blocks_with_a_sliding_window_have_a_mask_of_their_own(family_checkpoint, name):
    folder = family_checkpoint(name, use_sliding_window=True, sliding_window=16, max_window_layers=1)
    loaded = opened(folder)
    batch = padded(loaded, CASES["sizes"], "right")
    assert loaded.model.config.text_config.layer_types == ["full_attention", *["sliding_attention"] * 2]
    expected = logits_of(as_transformers_loads(folder), batch)
    assert torch.equal(logits_block_by_block(loaded, batch)[0], expected)
    assert not torch.allclose(expected, logits_of(as_transformers_loads(family_checkpoint(name)), batch))
