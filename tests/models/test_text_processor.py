"""A tokenizer called as a processor is: the same tokens, one text a turn, and no images."""

from __future__ import annotations

import pytest
from PIL import Image

from families.conversations import turn
from families.table import LANGUAGE
from qig.errors import DataError
from qig.models.architectures import architecture_of
from qig.models.classes import processor_of

TURNS = [turn("user", "Which digit?"), turn("assistant", "7")]


@pytest.fixture(params=LANGUAGE)
def processor(request, family_checkpoint):
    return processor_of(family_checkpoint(request.param), architecture_of(request.param))


def test_tokens_are_the_tokenizers(processor):
    made = processor(text=["a red 7", "blue"], padding=True, padding_side="left", return_tensors="pt")
    expected = processor.tokenizer(["a red 7", "blue"], padding=True, padding_side="left", return_tensors="pt")
    assert {name: value.tolist() for name, value in made.items()} == {k: v.tolist() for k, v in expected.items()}
    assert processor.batch_decode(made["input_ids"], skip_special_tokens=True) == ["a red 7", "blue"]


def test_parts_of_a_turn_are_one_text(processor):
    split = [turn("user", "Which ", "digit?"), {"role": "assistant", "content": "7"}]
    plain = [{"role": "user", "content": "Which digit?"}, {"role": "assistant", "content": "7"}]
    assert processor.apply_chat_template(split, tokenize=False) == processor.tokenizer.apply_chat_template(
        plain, tokenize=False
    )


def test_images_are_refused(processor):
    image = Image.new("RGB", (8, 8))
    with pytest.raises(DataError, match="takes no images"):
        processor(text=["a"], images=[[image]])
    with pytest.raises(DataError, match="takes no images"):
        processor.apply_chat_template([turn("user", image, "Which digit?")], tokenize=False)
    assert processor(text=["a"], images=None)["input_ids"]
