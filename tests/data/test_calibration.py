"""Calibration data on all three processors: kinds of tokens, labels, micro-batches, and samples that cannot be used."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from oracles.calls import logits_of
from qig.config.schema import DigitGridCalibration
from qig.data.calibration import digest, samples_of
from qig.data.samples import single_turn
from qig.data.tokens import TokenKind
from qig.errors import ConfigError, DataError, NonFiniteError

VISION_TOKENS = {"tiny_qwen2_vl": 36, "tiny_llava_onevision": 78, "tiny_internvl": 36}
PICTURE = Image.new("RGB", (48, 48), (10, 200, 30))


@pytest.fixture(scope="module")
def loaded_of(fresh_model):
    made = {}
    return lambda name: made.setdefault(name, fresh_model(name, blocks=1))


def sample(prompt="describe the image in detail .", answer="the image shows red .", image=PICTURE, name="s"):
    return single_turn(name, () if image is None else (image,), prompt, answer)


def prompt_of(source) -> str:
    return source.turns[0].content[-1]


def answer_of(source) -> str:
    return source.turns[-1].content[-1]


def words(batch, row, tokenizer, *kinds) -> list[str]:
    chosen = torch.isin(batch.kinds[row], torch.tensor([int(k) for k in kinds], dtype=torch.uint8))
    return tokenizer.convert_ids_to_tokens(batch.inputs["input_ids"][row][chosen].tolist())


def test_kinds_of_tokens(loaded_of, digit_samples, batches_of, any_tiny):
    loaded = loaded_of(any_tiny)
    tokenizer = loaded.processor.tokenizer
    for batch in batches_of(loaded, digit_samples):
        for row, position in enumerate(batch.order):
            source = digit_samples[position]
            assert batch.ids[row] == source.id
            assert words(batch, row, tokenizer, TokenKind.VISION) == ["<|image_pad|>"] * VISION_TOKENS[any_tiny]
            assert words(batch, row, tokenizer, TokenKind.PROMPT) == prompt_of(source).split()
            assert words(batch, row, tokenizer, TokenKind.ANSWER) == answer_of(source).split()
            special = words(batch, row, tokenizer, TokenKind.SPECIAL)
            assert set(special) <= {*tokenizer.all_special_tokens, "user", "assistant"}
            assert special.count("<|im_end|>") == special.count("<|im_start|>") == 2
            assert {"user", "assistant"} <= set(special)


def test_padding_is_where_the_attention_mask_is_zero(loaded_of, digit_samples, batches_of, any_tiny):
    batches = batches_of(loaded_of(any_tiny), digit_samples)
    assert any(not batch.real.all() for batch in batches)
    for batch in batches:
        assert torch.equal(batch.real, batch.inputs["attention_mask"].bool())


def test_labels_are_the_answer_and_the_end_of_the_turn(loaded_of, digit_samples, batches_of, any_tiny):
    loaded = loaded_of(any_tiny)
    for batch in batches_of(loaded, digit_samples):
        for row, position in enumerate(batch.order):
            labelled = batch.labels[row] != -100
            ids = batch.inputs["input_ids"][row]
            assert torch.equal(batch.labels[row][labelled], ids[labelled])
            found = loaded.processor.tokenizer.convert_ids_to_tokens(ids[labelled].tolist())
            assert found == [*answer_of(digit_samples[position]).split(), "<|im_end|>"]


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("red", "red"),
        ("image user image", "user ."),
        ("the image shows red .", "the image shows red ."),
        (" describe the image . ", " red "),
        (".", "."),
    ],
)
def test_prompts_and_answers_that_repeat_the_template(loaded_of, batches_of, any_tiny, prompt, answer):
    """Words of the template inside the text, the text twice, surrounding spaces: the counts stay right."""
    loaded = loaded_of(any_tiny)
    (batch,) = batches_of(loaded, [sample(prompt, answer)])
    assert int((batch.kinds == TokenKind.PROMPT).sum()) == len(prompt.split())
    assert int((batch.kinds == TokenKind.ANSWER).sum()) == len(answer.split())
    kinds = batch.kinds[0].tolist()
    # the prompt ends right before <|im_end|>, the answer begins right behind "assistant"
    ends = [i for i, t in enumerate(words_of(batch, loaded)) if t == "<|im_end|>"]
    assert kinds[ends[0] - 1] == TokenKind.PROMPT and kinds[ends[1] - 1] == TokenKind.ANSWER


def words_of(batch, loaded):
    return loaded.processor.tokenizer.convert_ids_to_tokens(batch.inputs["input_ids"][0].tolist())


@pytest.mark.parametrize(
    ("prompt", "answer", "tokens"),
    [("Describe the image.", "The image shows RED.", (4, 5)), ("red:blue.red", "red:blue", (5, 3))],
)
def test_text_that_the_tokenizer_normalises(loaded_of, batches_of, prompt, answer, tokens):
    """Capitals and missing spaces are lost in decoding; the tokens are still prompt and answer."""
    (batch,) = batches_of(loaded_of("tiny_qwen2_vl"), [sample(prompt, answer)])
    assert int((batch.kinds == TokenKind.PROMPT).sum()) == tokens[0]
    assert int((batch.kinds == TokenKind.ANSWER).sum()) == tokens[1]


def test_unknown_words_belong_to_their_text(loaded_of, batches_of, any_tiny):
    (batch,) = batches_of(loaded_of(any_tiny), [sample("describe the zeppelin in detail", "zeppelin shows red")])
    assert int((batch.kinds == TokenKind.PROMPT).sum()) == 5
    assert int((batch.kinds == TokenKind.ANSWER).sum()) == 3


def test_sample_without_image(loaded_of, batches_of, any_tiny):
    (batch,) = batches_of(loaded_of(any_tiny), [sample(image=None)])
    assert int((batch.kinds == TokenKind.VISION).sum()) == 0
    assert int((batch.kinds == TokenKind.ANSWER).sum()) == 5


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    budget=st.integers(1, 400),
)
def test_micro_batches_keep_the_budget_and_lose_nobody(loaded_of, batches_of, lengths, budget):
    samples = [sample(answer=" ".join(["red"] * n), name=str(i)) for i, n in enumerate(lengths)]
    batches = batches_of(loaded_of("tiny_qwen2_vl"), samples, tokens_per_batch=budget)
    assert sorted(position for batch in batches for position in batch.order) == list(range(len(samples)))
    for batch in batches:
        assert batch.kinds.numel() <= budget or len(batch.ids) == 1
        assert batch.kinds.shape == batch.labels.shape == batch.inputs["input_ids"].shape
        for row, position in enumerate(batch.order):
            assert int((batch.kinds[row] == TokenKind.ANSWER).sum()) == lengths[position]


def test_batch_does_not_change_a_samples_logits(loaded_of, digit_samples, batches_of, any_tiny):
    loaded = loaded_of(any_tiny)
    alone = {b.ids[0]: logits_of(loaded, [b])[0][0] for b in batches_of(loaded, digit_samples, tokens_per_batch=1)}
    for batch in batches_of(loaded, digit_samples, tokens_per_batch=10_000):
        logits = logits_of(loaded, [batch])[0]
        for row, name in enumerate(batch.ids):
            torch.testing.assert_close(logits[row][batch.real[row]], alone[name], rtol=1e-4, atol=1e-5)


def test_digest_sees_what_the_model_sees(loaded_of, digit_samples, batches_of):
    loaded = loaded_of("tiny_qwen2_vl")
    base = digest(batches_of(loaded, digit_samples))
    assert digest(batches_of(loaded, digit_samples)) == base
    changed = PICTURE.copy()
    changed.putpixel((0, 0), (0, 0, 0))
    pair = [digest(batches_of(loaded, [sample(image=image)])) for image in (PICTURE, changed)]
    assert pair[0] != pair[1]
    assert digest(batches_of(loaded, digit_samples[:-1])) != base
    assert digest(batches_of(loaded, [sample(answer="red")])) != digest(batches_of(loaded, [sample(answer="blue")]))


def truncated() -> Image.Image:
    buffer = io.BytesIO()
    Image.effect_noise((48, 48), 90).convert("RGB").save(buffer, "PNG")
    return Image.open(io.BytesIO(buffer.getvalue()[:1500]))


@pytest.mark.parametrize(
    "image",
    [truncated(), Path("/nowhere/picture.png"), b"not an image", 7],
    ids=["truncated", "absent", "bytes", "number"],
)
def test_unreadable_image_names_the_sample(loaded_of, batches_of, image, any_tiny):
    samples = [sample(name="good-1"), sample(name="broken-2", image=image)]
    with pytest.raises(DataError, match="calibration sample broken-2"):
        batches_of(loaded_of(any_tiny), samples)


@pytest.mark.parametrize("answer", ["", "   ", "\n"])
def test_empty_answer_names_the_sample(loaded_of, batches_of, answer, any_tiny):
    with pytest.raises(DataError, match="calibration sample mute has no answer token"):
        batches_of(loaded_of(any_tiny), [sample(name="fine"), sample(name="mute", answer=answer)])


def test_samples_of_the_configuration():
    few = samples_of(DigitGridCalibration("digitgrid", 3, 1, 100, 0.0))
    more = samples_of(DigitGridCalibration("digitgrid", 5, 1, 100, 0.0))
    other = samples_of(DigitGridCalibration("digitgrid", 3, 2, 100, 0.0))
    assert [(s.id, answer_of(s)) for s in few] == [(s.id, answer_of(s)) for s in more[:3]]
    assert [answer_of(s) for s in few] != [answer_of(s) for s in other]
    with pytest.raises(DataError, match="no samples"):
        samples_of(DigitGridCalibration("digitgrid", 0, 1, 100, 0.0))
    with pytest.raises(ConfigError, match=r"unknown calibration set 'coco'.*choose from: digitgrid, few_shot, hf, "):
        samples_of(DigitGridCalibration("coco", 1, 1, 100, 0.0))


def test_pixels_that_are_no_numbers_name_their_sample(loaded_of, digit_samples, batches_of, any_tiny, monkeypatch):
    """A processor whose standard deviation is zero, and a picture that alone is spoiled."""
    loaded = loaded_of(any_tiny)
    processor = loaded.processor.image_processor
    names = {source.id for source in digit_samples}
    with monkeypatch.context() as patched:
        patched.setattr(processor, "image_std", [0.0, 1.0, 1.0])
        with pytest.raises(NonFiniteError, match="non-finite pixel_values") as caught:
            batches_of(loaded, digit_samples)
        assert caught.value.sample in names
    original, spoiled = type(processor).preprocess, digit_samples[4]

    def preprocess(self, images, *args, **kwargs):
        made = original(self, images, *args, **kwargs)
        flat = images if not isinstance(images[0], list) else [image for row in images for image in row]
        if any(image.tobytes() == spoiled.images[0].convert("RGB").tobytes() for image in flat):
            made["pixel_values"][-1] = torch.full_like(torch.as_tensor(made["pixel_values"][-1]), torch.nan)
        return made

    monkeypatch.setattr(type(processor), "preprocess", preprocess)
    with pytest.raises(NonFiniteError) as caught:
        batches_of(loaded, digit_samples)
    assert caught.value.sample == spoiled.id
