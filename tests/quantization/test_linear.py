"""Fake-quantized layers and the bit setting that chooses them."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from oracles import grid as oracle
from qig.quantization.grid import ActivationGrid, WeightGrid
from qig.quantization.linear import QuantizedLinear, replace, substituted
from qig.quantization.setting import Setting

LINEARS = re.compile(r"(self_attn\.(q|k|v|o)|mlp\.(gate|up|down))_proj")
W3A16 = Setting(WeightGrid(3, False, 16), None, LINEARS)
W4A8 = Setting(WeightGrid(4, True, None), ActivationGrid(8), LINEARS)


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return nn.Linear(48, 20).requires_grad_(False)


@pytest.fixture
def x():
    return torch.randn(2, 5, 48, generator=torch.Generator().manual_seed(1)) * torch.linspace(0.1, 4, 48)


def numpy_of(*tensors):
    return [t.double().numpy() for t in tensors]


def test_weight_only_layer(linear, x):
    weight, bias, inputs = numpy_of(linear.weight, linear.bias, x)
    expected = inputs @ oracle.fake_weight(weight, 3, False, 16).T + bias
    np.testing.assert_allclose(W3A16.weight_only(linear)(x), expected, rtol=1e-5, atol=1e-5)


def test_weight_only_leaves_activations_alone_also_where_the_setting_has_integer_activations(linear, x):
    weight, bias, inputs = numpy_of(linear.weight, linear.bias, x)
    expected = inputs @ oracle.fake_weight(weight, 4, True, None).T + bias
    np.testing.assert_allclose(W4A8.weight_only(linear)(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("setting", [W3A16, W4A8], ids=["w3a16", "w4a8"])
def test_equalized_candidate(linear, x, setting):
    scale = torch.linspace(0.3, 3, 48)
    weight, bias, inputs, s = numpy_of(linear.weight, linear.bias, x, scale)
    grid = setting.weights
    divided = inputs / s
    if setting.activations is not None:
        divided = oracle.fake_activation(divided, 8)
    expected = divided @ oracle.fake_weight(weight * s, grid.bits, grid.symmetric, grid.group_size).T + bias
    np.testing.assert_allclose(setting.equalized(linear, scale)(x), expected, rtol=1e-4, atol=2e-4)


def test_a_candidate_of_a_sixteen_bit_model_is_divided_before_it_is_rounded(linear):
    """Q(W s) / s in float32, then once to the model's dtype."""
    scale, half = torch.linspace(0.3, 3, 48), linear.bfloat16()
    weight, s = half.weight.float().numpy(), scale.numpy()
    expected = oracle.fake_weight(weight * s, 3, False, 16).astype(np.float32) / s
    found = W3A16.equalized(half, scale).weight
    assert found.dtype == torch.bfloat16 and torch.equal(found, torch.from_numpy(expected).bfloat16())
    assert W3A16.weight_only(half).weight.dtype == torch.bfloat16


def test_the_layer_without_its_integers_computes_the_same(linear, x):
    quantized = W4A8.nearest(linear).quantized
    kept, derived = (make(quantized, linear.bias, torch.float32) for make in (W4A8.rounded, W4A8.derived))
    assert torch.equal(kept(x), derived(x)) and not list(derived.state_dict())


def test_quantized_layer_quantizes_activations_and_keeps_integers(linear, x):
    from qig.quantization.grid import quantize_weight

    layer = W4A8.rounded(quantize_weight(linear.weight, W4A8.weights), linear.bias, torch.float32)
    weight, bias, inputs = numpy_of(linear.weight, linear.bias, x)
    expected = oracle.fake_activation(inputs, 8) @ oracle.fake_weight(weight, 4, True, None).T + bias
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-5)
    assert isinstance(layer, QuantizedLinear)
    assert torch.equal(layer.quantized.dequantize(), layer.weight)


def test_selected_names_are_matched_in_full(fresh_model):
    block = fresh_model("tiny_internvl").blocks[0]
    assert len(W3A16.selected(block)) == 7
    only_mlp = Setting(W3A16.weights, None, re.compile(r"mlp\..*"))
    assert sorted(only_mlp.selected(block)) == ["mlp.down_proj", "mlp.gate_proj", "mlp.up_proj"]
    assert Setting(W3A16.weights, None, re.compile("down_proj")).selected(block) == {}
    norms = Setting(W3A16.weights, None, re.compile(".*norm.*"))
    assert norms.selected(block) == {}


def test_substituted_modules_return_whatever_happens(fresh_model):
    block = fresh_model("tiny_internvl").blocks[0]
    gate, up = block.mlp.gate_proj, block.mlp.up_proj
    with pytest.raises(RuntimeError), substituted(block, {"mlp.gate_proj": nn.Identity()}):
        assert isinstance(block.mlp.gate_proj, nn.Identity)
        raise RuntimeError
    assert block.mlp.gate_proj is gate
    absent = {"mlp.up_proj": nn.Identity(), "mlp.absent.x": nn.Identity()}
    with pytest.raises(AttributeError), substituted(block, absent):
        pass
    assert block.mlp.up_proj is up


def test_replace_returns_what_stood_there():
    root = nn.Sequential(nn.Sequential(nn.Linear(2, 2)))
    old = root[0][0]
    assert replace(root, "0.0", nn.Identity()) is old
    assert isinstance(root[0][0], nn.Identity)
