"""DigitGrid's scenes, captions and fixed question set."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from sklearn.datasets import load_digits

from qig.data.digitgrid import (
    CAPTION_PROMPT,
    CELLS,
    COLORS,
    LOOKUP_TYPES,
    QUESTION_TYPES,
    VOCABULARY,
    SceneSampler,
    calibration_samples,
    digit_pool,
    encode,
    evaluation_set,
    natural_caption,
    pair_list,
)
from qig.data.digitgrid.scenes import INKS, _enlarge
from qig.errors import DataError


def test_pools_partition_the_scans():
    train, test = digit_pool("train"), digit_pool("test")
    assert len(train.images) == 1347 and len(test.images) == 450
    assert Counter(train.labels) + Counter(test.labels) == Counter(load_digits().target)
    assert not {scan.tobytes() for scan in train.images} & {scan.tobytes() for scan in test.images}


def test_scans_are_enlarged_bilinearly():
    import torch

    scans = load_digits().images
    known = torch.from_numpy(scans).float()[:, None] / 16
    expected = torch.nn.functional.interpolate(known, size=(14, 14), mode="bilinear", align_corners=False)[:, 0]
    np.testing.assert_allclose(_enlarge(scans), expected.numpy(), atol=1e-6)


def test_unknown_split_names_the_choices():
    with pytest.raises(DataError, match=r"unknown split 'tset'.*test.*train"):
        SceneSampler("tset", 0)


def test_scenes_are_deterministic_and_well_formed():
    first, second = SceneSampler("train", 5), SceneSampler("train", 5)
    for _ in range(100):
        scene, again = first.sample(), second.sample()
        assert np.array_equal(scene.image, again.image)
        assert np.array_equal(scene.digits, again.digits)
        assert scene.image.shape == (48, 48, 3) and scene.image.dtype == np.uint8
        assert 3 <= len(scene.filled) <= 8
        assert np.array_equal(scene.digits >= 0, scene.colors >= 0)
        shown = scene.digits[scene.filled]
        assert len(set(shown)) == len(shown)
        assert np.array_equal(np.asarray(scene.pil()), scene.image)


def test_image_shows_the_inks_of_the_scene():
    """The brightest direction of each cell, read from the pixels alone, is the ink the scene names."""
    sampler = SceneSampler("test", 1)
    hues = INKS / np.linalg.norm(INKS, axis=1, keepdims=True)
    right = []
    for _ in range(50):
        scene = sampler.sample()
        for cell in scene.filled:
            row, column = divmod(int(cell), 3)
            pixels = scene.image[16 * row : 16 * row + 16, 16 * column : 16 * column + 16].reshape(-1, 3).astype(float)
            brightest = pixels[np.argsort(pixels.sum(1))[-30:]].mean(0)
            right.append(np.argmax(hues @ brightest) == scene.colors[cell])
    assert np.mean(right) > 0.99


def test_evaluation_set_is_balanced_and_unique():
    items = evaluation_set()
    assert Counter(item.type for item in items) == dict.fromkeys(QUESTION_TYPES, 200)
    assert len({item.id for item in items}) == len(items) == 2200
    per_image = Counter(item.image_id for item in items)
    assert 300 <= len(per_image) <= 400 and max(per_image.values()) == 6
    assert all(item.image.size == (48, 48) and item.image.mode == "RGB" for item in items)
    assert all(len(item.answer.split()) == 1 for item in items)
    for item in items:
        encode(f"{item.question} {item.answer}")  # raises on a word without a token


def _digest(items) -> str:
    digest = hashlib.sha256()
    for item in items:
        digest.update(f"{item.id}|{item.question}|{item.answer}".encode() + item.image.tobytes())
    return digest.hexdigest()


def test_evaluation_set_is_the_published_one():
    """The committed accuracies refer to these very questions: a change here needs new weights and new tables."""
    assert _digest(evaluation_set()) == "d06a13072e612ffb20631dd07935fa888418d412b2069209af8ac011f4d139ce"
    assert _digest(evaluation_set(seed=1, per_type=5)) != _digest(evaluation_set(seed=2, per_type=5))


def test_too_few_images_is_one_clear_error():
    with pytest.raises(DataError, match=r"3 images allow .* fewer than 10 of each of the 11 types"):
        evaluation_set(images=3, per_type=10)


def test_calibration_samples_are_stable_captions():
    five, three = calibration_samples(5, seed=7), calibration_samples(3, seed=7)
    assert [sample.id for sample in five[:3]] == [sample.id for sample in three]
    assert all(a.images[0].tobytes() == b.images[0].tobytes() for a, b in zip(five, three, strict=False))
    assert all(sample.turns[0].content[-1] == CAPTION_PROMPT and len(sample.images) == 1 for sample in five)
    assert five[0].turns[-1].content[0].startswith("the image shows")
    other = calibration_samples(3, seed=8)
    assert three[0].images[0].tobytes() != other[0].images[0].tobytes()
    evaluated = {item.image.tobytes() for item in evaluation_set(seed=7, per_type=20)}
    assert not evaluated & {sample.images[0].tobytes() for sample in calibration_samples(60, seed=7, split="test")}


def test_captions_show_digits_of_the_training_pool_and_questions_those_of_the_test_pool(monkeypatch):
    """Else a model would be calibrated on scans that it is evaluated on."""
    from qig.config.schema import DigitGridCalibration
    from qig.data.calibration import samples_of

    asked: list[str] = []
    monkeypatch.setattr("qig.data.digitgrid.scenes.digit_pool", lambda split: asked.append(split) or digit_pool(split))
    samples = samples_of(DigitGridCalibration("digitgrid", 2, 5, 100, 0.0))
    assert asked == ["train"]
    assert [sample.id for sample in samples] == ["digitgrid-train-5-00000", "digitgrid-train-5-00001"]
    evaluation_set(seed=5, images=20, per_type=2)
    assert asked == ["train", "test"]


def test_natural_caption_states_the_whole_scene():
    sampler = SceneSampler("train", 2)
    for _ in range(50):
        scene = sampler.sample()
        words = natural_caption(scene).split()
        encode(" ".join(words))
        assert words[3] == str(len(scene.filled))
        stated = dict(zip(words[6::4], zip(words[7::4], words[8::4], strict=True), strict=False))
        expected = {CELLS[k]: (COLORS[scene.colors[k]], str(scene.digits[k])) for k in scene.filled}
        assert stated == expected


@pytest.mark.parametrize("relation", LOOKUP_TYPES)
def test_pair_lists_pair_right(relation):
    sampler = SceneSampler("train", 3)
    value, key = relation.replace("_at_", "_of_").split("_of_")
    for _ in range(50):
        scene = sampler.sample()
        pairs = pair_list(scene, relation, sampler.rng)
        encode(f"{pairs.prompt} {' '.join(pairs.words)}")
        facts = {
            "cell": CELLS,
            "digit": ["none" if d < 0 else str(d) for d in scene.digits],
            "color": ["none" if c < 0 else COLORS[c] for c in scene.colors],
        }
        keys = pairs.words[::2]
        assert len(set(keys)) == len(keys)
        for name, told in zip(keys, pairs.words[1::2], strict=True):
            assert [facts[value][k] for k in range(9) if facts[key][k] == name] == [told]


def test_vocabulary_is_dense_and_refuses_strangers():
    assert sorted(VOCABULARY.values()) == list(range(len(VOCABULARY)))
    with pytest.raises(DataError, match=r"\['zebra'\]"):
        encode("where is the zebra ?")


def test_import_needs_no_torch():
    code = "import sys, qig.data.digitgrid; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
