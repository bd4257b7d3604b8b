"""Token for token the published prompt, and the published tokenizers' ids."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoProcessor

from families import internvl2
from models.internvl2.conftest import converted_into
from qig.models.internvl2 import convert

SYSTEM = internvl2.PUBLISHED_SYSTEM
QUESTION, ANSWER = "What digit is in the top left cell?", "2 dogs"
PUBLISHED = (
    f"<|im_start|>system\n{SYSTEM}<|im_end|><|im_start|>user\nIMAGE\n{QUESTION}<|im_end|><|im_start|>assistant\n"
)


def conversation(answer: str | None = None) -> list[dict]:
    image = {"type": "image", "image": Image.new("RGB", (50, 16))}
    turns = [{"role": "user", "content": [image, {"type": "text", "text": QUESTION}]}]
    return turns + ([{"role": "assistant", "content": [{"type": "text", "text": answer}]}] if answer else [])


def pieces_by_sentencepiece(model: bytes, added: dict[str, int], text: str) -> list[int]:
    """As the published slow tokenizer: added tokens first, the text between them by sentencepiece."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    ids = []
    for part in re.split("(" + "|".join(map(re.escape, added)) + ")", text):
        ids += [added[part]] if part in added else processor.encode(part)
    return ids


def added_by(tokenizer) -> dict[str, int]:
    return {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}


def test_prompt_string_and_tokens(both):
    processor = both.processor()
    text = processor.apply_chat_template(conversation(), tokenize=False, add_generation_prompt=True)
    assert text == PUBLISHED.replace("IMAGE", "<IMG_CONTEXT>")
    ids = processor.apply_chat_template(conversation(), tokenize=True, return_dict=True, add_generation_prompt=True)
    tiles = len(ids["pixel_values"])
    assert tiles == 4  # three by one, and a thumbnail
    image = "<img>" + "<IMG_CONTEXT>" * 4 * tiles + "</img>"
    tokenizer = processor.tokenizer
    expected = tokenizer(PUBLISHED.replace("IMAGE", image)).input_ids
    assert list(ids["input_ids"][0]) == expected
    internlm2 = both.settings["template"] == "internlm2-chat"
    assert (expected[0] == 1) == internlm2  # <s>, which Qwen2 has not
    assert expected.count(tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")) == 4 * tiles


def test_dialogue_goes_on_without_a_line_break(both):
    text = both.processor().apply_chat_template(conversation(ANSWER), tokenize=False)
    assert text == PUBLISHED.replace("IMAGE", "<IMG_CONTEXT>") + f"{ANSWER}<|im_end|>"


def test_own_system_turn_replaces_the_published_one(both):
    turns = [{"role": "system", "content": "Be brief."}, *conversation()]
    text = both.processor().apply_chat_template(turns, tokenize=False)
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|><|im_start|>user\n") and SYSTEM not in text


def test_template_of_the_next_release(tmp_path):
    case = converted_into(tmp_path, template="internvl2_5", system_message="Say 'yes' or \"no\".")
    text = case.processor().apply_chat_template(conversation(ANSWER), tokenize=False)
    assert text == (
        "<|im_start|>system\nSay 'yes' or \"no\".<|im_end|>\n"
        f"<|im_start|>user\n<IMG_CONTEXT>\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n{ANSWER}<|im_end|>\n"
    )


def test_special_tokens_are_special_and_keep_their_ids(both):
    tokenizer = both.processor().tokenizer
    published = [*internvl2.IMAGE_TOKENS, "<|im_start|>", "<|im_end|>"]
    assert set(published) <= set(tokenizer.all_special_tokens)
    settings = json.loads((both.original / "tokenizer_config.json").read_text())
    for i, token in settings["added_tokens_decoder"].items():
        assert tokenizer.convert_tokens_to_ids(token["content"]) == int(i)
    assert len(tokenizer) == both.settings["llm_config"]["vocab_size"]
    assert tokenizer.model_max_length == 8192
    assert tokenizer.decode(tokenizer("<|im_start|>a dog<|im_end|>").input_ids, skip_special_tokens=True) == "a dog"


def test_qwen2_from_a_single_file(published, tmp_path):
    case = published("qwen2")
    internvl2.write(tmp_path / "original", text="qwen2", shards=1)
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / "original" / name).unlink()
    shutil.copy(case.native / "tokenizer.json", tmp_path / "original")
    (tmp_path / "native").mkdir()
    convert(tmp_path / "original", tmp_path / "native")
    found = AutoProcessor.from_pretrained(tmp_path / "native").tokenizer
    assert found(PUBLISHED).input_ids == case.processor().tokenizer(PUBLISHED).input_ids


WORDS = st.sampled_from(
    [*internvl2.CORPUS[0].split(), "大模型", "  ", "\n", "<img>", "<|im_end|>", "[UNUSED_TOKEN_139]"]
)
TEXTS = st.one_of(
    st.lists(WORDS, max_size=12).map(" ".join),
    st.lists(WORDS, max_size=12).map("".join),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=30),
)


@given(text=TEXTS)
def test_internlm2_ids_are_those_of_sentencepiece(published, text):
    case = published("internlm2")
    tokenizer = _tokenizer(case)
    model = (case.original / "tokenizer.model").read_bytes()
    expected = pieces_by_sentencepiece(model, added_by(tokenizer), text)
    assert tokenizer(text).input_ids == [1, *expected]


_LOADED: dict = {}


def _tokenizer(case):
    return _LOADED.setdefault(case.native, case.processor().tokenizer)


@pytest.mark.parametrize(
    "settings",
    [{"add_dummy_prefix": True}, {"remove_extra_whitespaces": True}, {"normalization_rule_name": "nmt_nfkc"}],
    ids=str,
)
def test_other_normalisations_of_sentencepiece(tmp_path, settings):
    model = internvl2.train_sentencepiece(**settings)
    case = converted_into(tmp_path, sentencepiece_model=model)
    tokenizer = case.processor().tokenizer
    for text in (QUESTION, " two  dogs <img>on a sofa ", "大模型ｆｕｌｌ", "", " "):
        assert tokenizer(text).input_ids == [1, *pieces_by_sentencepiece(model, added_by(tokenizer), text)], text
