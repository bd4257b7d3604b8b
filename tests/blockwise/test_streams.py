"""Both streams, block by block, against one ordinary forward pass of the whole model."""

from __future__ import annotations

import pytest
import torch

from oracles.calls import block_inputs_and_outputs
from qig.blockwise.activations import Activations
from qig.blockwise.capture import enter
from qig.blockwise.streams import Streams
from qig.errors import NonFiniteError
from qig.models.architectures import LLAMA_SITES
from qig.quantization.grid import ActivationGrid
from qig.quantization.linear import FakeQuantLinear

CPU = torch.device("cpu")


@pytest.fixture
def case(fresh_model, digit_samples, batches_of, any_tiny):
    loaded = fresh_model(any_tiny, blocks=3)
    batches = batches_of(loaded, digit_samples)
    assert len(batches) > 1 and not all(batch.real.all() for batch in batches)
    return loaded, batches


def test_exact_stream_is_the_forward_pass_bit_for_bit(case):
    loaded, batches = case
    expected = [block_inputs_and_outputs(loaded, batch) for batch in batches]
    streams = Streams(loaded, batches, Activations(CPU), with_quantized=True)
    for index, block in enumerate(loaded.blocks):
        for x, (inputs, _) in zip(streams.exact, expected, strict=True):
            assert torch.equal(x, inputs[index])
        streams.advance(index, block, block)
        for x, x_q, (_, outputs) in zip(streams.exact, streams.quantized, expected, strict=True):
            assert torch.equal(x, outputs[index]) and torch.equal(x_q, outputs[index])


def test_site_calls_hold_the_inputs_of_the_inspected_modules(case):
    loaded, batches = case
    streams = Streams(loaded, batches, Activations(CPU), with_quantized=False)
    assert streams.quantized is None
    block = loaded.blocks[0]
    calls, outputs = streams.site_calls(0, block, list(LLAMA_SITES), "exact")
    for i, batch in enumerate(batches):
        x = streams.exact[i]
        normed = block.input_layernorm(x)
        assert torch.equal(calls["attn_in"][i].x, normed)
        attended = x + calls["attn_in"][i](block.self_attn)
        assert torch.equal(calls["mlp_in"][i].x, block.post_attention_layernorm(attended))
        hidden = calls["mlp_in"][i].x
        product = block.mlp.act_fn(block.mlp.gate_proj(hidden)) * block.mlp.up_proj(hidden)
        assert torch.equal(calls["mlp_out"][i].x, product)
        assert calls["attn_out"][i].x.shape == (*batch.kinds.shape, block.self_attn.o_proj.in_features)
        assert torch.equal(outputs[i], attended + block.mlp(hidden))
    assert all(not module._forward_pre_hooks for module in block.modules())


def test_inputs_of_one_site_alone_are_those_of_the_whole_block(case):
    loaded, batches = case
    streams = Streams(loaded, batches, Activations(CPU), with_quantized=True)
    block = loaded.blocks[1]
    expected, _ = streams.site_calls(1, block, list(LLAMA_SITES), "quantized")
    modules = list(block.modules())
    for position, site in enumerate(LLAMA_SITES):
        found = streams.site_inputs(1, block, site, LLAMA_SITES[position:], "quantized")
        assert len(found) == len(batches)
        for one, other in zip(found, expected[site.name], strict=True):
            assert torch.equal(one.x, other.x) and one.kwargs.keys() == other.kwargs.keys()
    assert all(a is b for a, b in zip(modules, block.modules(), strict=True))  # nothing is left silent
    assert all(not module._forward_pre_hooks for module in modules)


def test_blocks_are_back_and_the_model_unharmed_after_capture(case):
    loaded, batches = case
    before = list(loaded.blocks)
    enter(loaded, batches[0], Activations(CPU))
    assert list(loaded.blocks) == before
    with torch.no_grad():
        states = loaded.model(**batches[0].inputs, use_cache=False, output_hidden_states=True).hidden_states
    _, outputs = block_inputs_and_outputs(loaded, batches[0])
    assert len(states) == len(before) + 1
    assert torch.equal(states[1], outputs[0])


def test_blocks_are_back_when_the_model_raises(case):
    loaded, batches = case
    before = list(loaded.blocks)
    broken = dict(batches[0].inputs, input_ids=batches[0].inputs["input_ids"] + 10_000)
    with pytest.raises(IndexError):
        enter(loaded, type(batches[0])(**{**vars(batches[0]), "inputs": broken}), Activations(CPU))
    assert list(loaded.blocks) == before


def test_quantized_stream_is_the_forward_pass_of_a_quantized_model(case):
    loaded, batches = case
    streams = Streams(loaded, batches, Activations(CPU), with_quantized=True)
    for index, block in enumerate(loaded.blocks):
        streams.advance(index, block, None)
        down = block.mlp.down_proj
        block.mlp.down_proj = FakeQuantLinear((down.weight * 4).round() / 4, None, activations=ActivationGrid(4))
        streams.advance(index, None, block)
    for x_q, x, batch in zip(streams.quantized, streams.exact, batches, strict=True):
        _, outputs = block_inputs_and_outputs(loaded, batch)
        assert torch.equal(x_q, outputs[-1]) and not torch.equal(x, outputs[-1])


@pytest.mark.parametrize("place", ["host", "disk"])
def test_where_activations_wait_changes_nothing(case, tmp_path, place):
    loaded, batches = case
    here = Streams(loaded, batches, Activations(CPU), with_quantized=True)
    there = Streams(loaded, batches, Activations(CPU, place, tmp_path / "a"), with_quantized=True)
    sites = list(LLAMA_SITES)
    for index, block in enumerate(loaded.blocks):
        (one, ends), (other, other_ends) = (s.site_calls(index, block, sites, "exact") for s in (here, there))
        for site in sites:
            for a, b in zip(one[site.name], other[site.name], strict=True):
                assert torch.equal(a.x, b.x) and torch.equal(a(block.get_submodule(site.inspected)),
                                                             b(block.get_submodule(site.inspected)))
        assert all(torch.equal(a, b) for a, b in zip(ends, other_ends, strict=True))
        here.advance(index, block, block)
        there.advance(index, block, block)
    assert all(torch.equal(a, b) for a, b in zip(here.quantized, there.quantized, strict=True))


def test_non_finite_states_name_block_and_sample(case):
    loaded, batches = case
    streams = Streams(loaded, batches, Activations(CPU), with_quantized=False)
    streams.exact[1][-1, 0, 5] = torch.inf
    expected = f"behind the block .exact stream. at block 0, sample {batches[1].ids[-1]}:"
    with pytest.raises(NonFiniteError, match=expected):
        streams.advance(0, loaded.blocks[0], None)


def test_non_finite_padding_is_nobodys_business(case):
    loaded, batches = case
    streams = Streams(loaded, batches, Activations(CPU), with_quantized=False)
    for i, batch in enumerate(batches):
        y = torch.where(batch.real.unsqueeze(-1), streams.exact[i], torch.nan)
        streams._behind(0, i, y, "exact")
