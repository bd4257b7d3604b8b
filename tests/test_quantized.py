"""The size of a model, counted by hand."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open

from qig.config.schema import Model, Outliers
from qig.models.checkpoint import resolve
from qig.models.loading import load, open_model
from qig.quantization.setting import Setting
from qig.quantized import model_bytes

# Of a block: rows and columns of q, k, v, o, gate, up and down; 128 channels, two of four heads for keys and values.
ATTENTION = [(128, 128), (64, 128), (64, 128), (128, 128)]
MLP = [(384, 128), (384, 128), (128, 384)]
BLOCKS = 6


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize(
    ("words", "shapes", "bits_of_group"),
    [
        (["quant=w3a16"], ATTENTION + MLP, 3 * 128 + 32 + 3),  # a scale in 32 bits and a zero point beside the integers
        (["quant=w2a16_g64"], ATTENTION + MLP, 2 * 64 + 32 + 2),
        (["quant=w4a16", r"quant.linears='mlp\..*'"], MLP, 4 * 128 + 32 + 4),
        (["quant=w4a8"], ATTENTION + MLP, None),  # a scale a row, no zero point
    ],
)
def test_bytes_of_an_embedded_model(compose, words, shapes, bits_of_group, opened):
    setting = Setting.of(compose(*words).quant)
    model = Model("tiny", "embedded:tiny_internvl", "float32", Outliers(0.0, 0))
    device = torch.device("cpu")
    with safe_open(resolve(model.path) / "model.safetensors", "pt") as file:  # what is tied is there once
        names = list(file.keys())
        weights = sum(file.get_tensor(name).numel() for name in names)
    assert not any("lm_head" in name for name in names)
    replaced = BLOCKS * sum(rows * columns for rows, columns in shapes)
    if bits_of_group is None:
        packed = BLOCKS * sum(rows * (4 * columns + 32) for rows, columns in shapes) // 8
    else:
        packed = replaced // setting.weights.group_size * bits_of_group // 8
    expected = {"sixteen_bit": 2 * weights, "quantized": 2 * (weights - replaced) + packed}
    loaded = open_model(model, device) if opened else load(model, device)
    assert model_bytes(loaded, setting) == expected
    assert model_bytes(loaded, None) == {"sixteen_bit": 2 * weights, "quantized": 2 * weights}
