"""The order of vision tokens against transformers' own code: what it does to coordinates, or to a changed pixel."""

import numpy as np
import pytest
import torch
from PIL import Image

from qig.errors import DataError, ModelError
from qig.models.tiny.build import build_model
from qig.models.tiny.processors import build_processor
from qig.report.patches import LAYOUTS, patches

SIZE = 48
TOKENS = {"tiny_qwen2_vl": 36, "tiny_llava_onevision": 78, "tiny_internvl": 36}


def layout(name):
    grey = Image.new("RGB", (SIZE, SIZE), (90, 90, 90))
    return patches(build_processor(name), name.removeprefix("tiny_"), grey, TOKENS[name])


def centres(found):
    return np.array([[(p.top + p.bottom) / 2, (p.left + p.right) / 2] for p in found])


def patch_coordinates(side):
    """``[side * side, 2]``: centres of a raster of patches, row by row, as a vision tower embeds them."""
    steps = (torch.arange(side) + 0.5) / side
    return torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)


def test_every_vision_token_of_a_real_sample_is_accounted_for(any_tiny, fresh_model, digit_samples, batches_of):
    loaded = fresh_model(any_tiny)
    (batch,) = batches_of(loaded, digit_samples[:1])
    tokens = int((batch.kinds == 2).sum())
    found = patches(loaded.processor, loaded.model.config.model_type, digit_samples[0].images[0], tokens)
    assert tokens == TOKENS[any_tiny]
    areas = {}
    for patch in found:
        assert 0 <= patch.token < tokens
        area = (patch.bottom - patch.top) * (patch.right - patch.left)
        areas[patch.raster] = areas.get(patch.raster, 0) + area
    assert all(area == pytest.approx(1) for area in areas.values())


def test_qwen2_vl_a_changed_corner_changes_the_tokens_that_lie_there():
    processor = build_processor("tiny_qwen2_vl").image_processor
    grey = np.full((SIZE, SIZE, 3), 90, np.uint8)
    plain = processor(images=[Image.fromarray(grey)], return_tensors="pt")["pixel_values"]
    found = layout("tiny_qwen2_vl")
    for row, column in [(0, 0), (0, 40), (8, 24), (40, 16), (47, 47)]:
        changed = grey.copy()
        changed[row, column] = 255
        values = processor(images=[Image.fromarray(changed)], return_tensors="pt")["pixel_values"]
        # merge_size^2 = 4 neighbouring patches, one after the other, are one token
        tokens = {int(patch) // 4 for patch in (values != plain).any(1).nonzero().flatten()}
        expected = {p.token for p in found if p.top <= row / SIZE < p.bottom and p.left <= column / SIZE < p.right}
        assert tokens == expected and len(tokens) == 1


def test_internvl_pixel_shuffle_of_coordinates():
    model = build_model("tiny_internvl").model
    side = SIZE // 4
    shuffled = model.pixel_shuffle(patch_coordinates(side).view(1, side, side, 2), model.config.downsample_ratio)
    expected = shuffled.reshape(-1, 4, 2).mean(1)  # each token holds the four patches that became one
    np.testing.assert_allclose(centres(layout("tiny_internvl")), expected.numpy(), atol=1e-6)


def test_llava_onevision_packing_of_coordinates():
    model = build_model("tiny_llava_onevision").model
    coordinates = patch_coordinates(6)
    line_end = torch.full((2,), -1.0)
    packed, _ = model.pack_image_features([torch.stack([coordinates, coordinates])], torch.tensor([[SIZE, SIZE]]),
                                          image_newline=line_end)
    found = layout("tiny_llava_onevision")
    shown = {patch.token for patch in found}
    assert shown == {i for i, place in enumerate(packed[0]) if place[0] >= 0}
    np.testing.assert_allclose(centres(found), packed[0][sorted(shown)].numpy(), atol=1e-6)


def test_unknown_layouts_are_refused():
    grey = Image.new("RGB", (SIZE, SIZE))
    processor = build_processor("tiny_internvl")
    with pytest.raises(DataError, match=r"72 vision tokens of internvl is not known: .* has 36"):
        patches(processor, "internvl", grey, 72)
    with pytest.raises(ModelError, match="layout of vision tokens"):
        patches(processor, "idefics", grey, 36)
    assert set(LAYOUTS) == {name.removeprefix("tiny_") for name in TOKENS}
