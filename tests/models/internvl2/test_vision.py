"""InternViT with fused queries, keys and values, layer scales, pixel shuffle and projector, against an oracle."""

from __future__ import annotations

import pytest
import torch

from models.internvl2.conftest import converted_into
from oracles import internvl2 as oracle


def tiles(count: int, size: int = 16) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@torch.no_grad()
def assert_same_features(case, pixels: torch.Tensor) -> None:
    found = case.model().get_image_features(pixel_values=pixels, return_dict=True).pooler_output
    expected = torch.stack([oracle.image_features(case.tensors, case.settings, tile) for tile in pixels])
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("vision", ["300m", "6b"])
def test_image_features(published, vision):
    case = published("internlm2", vision)
    assert case.model().config.vision_config.use_qk_norm == (vision == "6b")
    assert_same_features(case, tiles(3))


@pytest.mark.parametrize("layer", [-2, -3])
def test_features_of_an_earlier_layer(tmp_path, layer):
    case = converted_into(tmp_path, select_layer=layer)
    assert_same_features(case, tiles(2))


def test_another_downsample_ratio(tmp_path):
    case = converted_into(tmp_path, downsample_ratio=0.25)
    assert case.model().config.image_seq_length == 1
    assert_same_features(case, tiles(2))
