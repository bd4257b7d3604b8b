"""The vision tower works once for questions about one picture; the answers are those of a tower that works for each."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from qig.evaluation.prompts import encode, render, to_model
from qig.evaluation.protocols import PLAIN
from qig.evaluation.shared_pictures import see_once


def shared(model, processor, conversations, side="left"):
    """A batch as the processor makes it, and with each picture seen once."""
    texts = render(processor, conversations)
    inputs = to_model(encode(processor, texts, conversations, PLAIN, padding_side=side), model)
    return inputs, see_once(model, processor, inputs, texts, conversations, PLAIN)


def differing(conversations):
    """One conversation a picture."""
    return list(
        {conversation[0]["content"][0]["image"].tobytes(): conversation for conversation in conversations}.values()
    )


def several(conversations):
    """Two pictures in some, one in others, none in one; three differ by nothing but their text."""
    one, other = (conversation[0]["content"][0] for conversation in (conversations[0], conversations[-1]))
    assert one["image"].tobytes() != other["image"].tobytes()
    text = [{"type": "text", "text": word} for word in ("red", "what is the digit", "blue and", "the", "a", "exists")]
    contents = [[one, text[0]], [one, other, text[1]], [text[2]], [one, other, text[3]], [other, text[4]],
                [one, text[5]], [other, one, text[0]]]  # fmt: skip
    return [[{"role": "user", "content": content}] for content in contents]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("made", [list, several])
def test_logits_are_those_of_pixels(model_and_processor, conversations, made, side):
    model, processor = model_and_processor
    plain, once = shared(model, processor, made(conversations), side)
    assert "mm_encoder_outputs" in once and "mm_encoder_outputs" not in plain
    assert not [name for name in once if name.startswith("pixel")]
    with torch.inference_mode():
        expected, got = model(**plain).logits, model(**once).logits
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "smolvlm"])
def test_logits_are_those_of_pixels_in_other_families(family_checkpoint, conversations, family):
    """Qwen3-VL's vision tower feeds several decoder blocks."""
    model = AutoModelForImageTextToText.from_pretrained(family_checkpoint(family), dtype=torch.float32).eval()
    plain, once = shared(model, AutoProcessor.from_pretrained(family_checkpoint(family)), conversations[:6])
    assert "mm_encoder_outputs" in once
    with torch.inference_mode():
        expected, got = model(**plain).logits, model(**once).logits
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_answers_are_those_of_pixels(model_and_processor, conversations, beams):
    model, processor = model_and_processor
    plain, once = shared(model, processor, several(conversations))
    options = {"max_new_tokens": 5, "num_beams": beams, "do_sample": False}
    start = plain["input_ids"].shape[1]
    with torch.inference_mode():
        expected, got = (model.generate(**inputs, **options)[:, start:] for inputs in (plain, once))
    assert got.tolist() == expected.tolist()


def alike_in_bytes():
    """Pairs of pictures that differ, in shape, in palette or in mode, while their pixels' bytes are the same."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 72, 3), dtype=np.uint8)
    grey = Image.fromarray(noise[..., 0])
    coloured = [Image.frombytes("P", grey.size, grey.tobytes()) for _ in range(2)]
    for picture, channel in zip(coloured, (0, 2), strict=True):
        picture.putpalette(np.pad(np.arange(256, dtype=np.uint8)[:, None], ((0, 0), (channel, 2 - channel))).tobytes())
    turned = Image.fromarray(noise.reshape(72, 32, 3))
    return {"shape": (Image.fromarray(noise), turned), "palette": coloured, "mode": (grey, coloured[0])}


@pytest.mark.parametrize("difference", ["shape", "palette", "mode"])
def test_pictures_of_the_same_bytes_may_be_different_ones(internvl, difference):
    model, processor = internvl
    one, other = alike_in_bytes()[difference]
    assert one.tobytes() == other.tobytes()
    parts = [{"type": "image", "image": picture} for picture in (one, other, one)]
    asked = [[{"role": "user", "content": [part, {"type": "text", "text": "red"}]}] for part in parts]
    plain, once = shared(model, processor, asked)
    assert "mm_encoder_outputs" in once
    with torch.inference_mode():
        expected, got = model(**plain).logits, model(**once).logits
    assert not torch.allclose(expected[0], expected[1], atol=1e-2)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_each_picture_is_seen_once(model_and_processor, conversations, monkeypatch):
    model, processor = model_and_processor
    see, given = model.base_model.get_image_features, []

    @functools.wraps(see)
    def counted(*args, **kwargs):
        found = see(*args, **kwargs)
        given.append(sum(len(part) for part in found.pooler_output))
        return found

    monkeypatch.setattr(model.base_model, "get_image_features", counted)
    unlike = differing(conversations)
    assert 1 < len(unlike) < len(conversations)
    for asked in (unlike, conversations):
        with torch.inference_mode():
            model(**shared(model, processor, asked)[1])
    of_distinct, of_all = given
    assert of_all == of_distinct


def test_nothing_is_shared_where_pictures_differ_or_features_cannot_be_taken(internvl, conversations, monkeypatch):
    model, processor = internvl
    unlike = differing(conversations)
    plain, same = shared(model, processor, unlike)
    assert same is plain
    words = [[{"role": "user", "content": [{"type": "text", "text": "red"}]}]] * 2
    plain, same = shared(model, processor, words)
    assert same is plain
    monkeypatch.setattr(model, "forward", lambda input_ids, pixel_values: None)
    plain, same = shared(model, processor, conversations)
    assert same is plain
