"""Kinds and labels of every token against an oracle, for conversations of any form on the embedded processors."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import processors

from oracles.masks import by_byte, by_word, tiny_fragments
from qig.data.calibration import IGNORE, collate
from qig.data.encoding import encode
from qig.data.samples import CalibrationSample, PlainText, Turn, single_turn
from qig.data.tokens import TokenKind
from qig.errors import DataError

PICTURE = Image.new("RGB", (48, 48), (10, 200, 30))
TINY = ("tiny_qwen2_vl", "tiny_llava_onevision", "tiny_internvl")
WORDS = ("describe", "the", "image", "in", "detail", ".", "it", "shows", "a", "red", "seven", "user", "assistant")


def picture(name: str, images: int) -> tuple[str, int, str]:
    """What one 48 x 48 image becomes; LLaVA-OneVision leaves out the overview's tiles when there are several."""
    if name == "tiny_llava_onevision":
        return "", 78 if images == 1 else 37, ""
    return "<|vision_start|>", 36, "<|vision_end|>"


def image_ids(processor) -> set[int]:
    return {processor.image_token_id}


def found(sample, processor):
    encoded = encode(sample, processor, image_ids(processor))
    return encoded.ids, list(zip(encoded.ids, encoded.kinds.tolist(), encoded.learned.tolist(), strict=True))


def user(*content) -> Turn:
    return Turn("user", content)


def assistant(*content) -> Turn:
    return Turn("assistant", content)


FORMS = {
    "one turn": [(user(PICTURE, "describe the image ."), assistant("it shows red"))],
    "image last": [(user("describe the image .", PICTURE), assistant("red"))],
    "text only": [(user("describe the image ."), assistant("it shows red ."))],
    "multi-turn": [
        (user(PICTURE, "describe the image"), assistant("it shows red"), user("in detail"), assistant("red seven ."))
    ],
    "several images": [(user(PICTURE, PICTURE, "describe the image"), assistant("red"))],
    "interleaved images": [(user("it shows", PICTURE, "red", PICTURE, "seven"), assistant("red ."))],
    "images in several turns": [(user(PICTURE, "red"), assistant("seven"), user(PICTURE, "user"), assistant("red"))],
    "image in an answer": [(user("image"), assistant("red", PICTURE), user("red"), assistant(PICTURE, "seven"))],
    "system turn": [(Turn("system", ("it shows red",)), user(PICTURE, "image"), assistant("seven"))],
    "same text everywhere": [(user(PICTURE, "assistant"), assistant("user"), user("user"), assistant("assistant"))],
    "few-shot": [(user(PICTURE, "image"), assistant("red")), (user(PICTURE, "seven"), assistant("it shows"))],
    "with plain text": [(user(PICTURE, "image"), assistant("red")), PlainText("it shows a red seven")],
    "interleaved": [
        (user(PICTURE, "image"), assistant("red")),
        PlainText("it shows a red seven"),
        (user(PICTURE, "in detail"), assistant("seven .")),
    ],
    "plain text": [PlainText("describe the image in detail .")],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", TINY)
def test_every_form_on_every_family(processor_of, name, form):
    sample = CalibrationSample("s", tuple(FORMS[form]))
    fragments = tiny_fragments(sample, picture(name, len(sample.images)))
    for byte_level in (False, True):
        processor = processor_of(name, byte_level)
        ids, tokens = found(sample, processor)
        oracle = by_byte(fragments, ids, processor.tokenizer) if byte_level else by_word(fragments, processor.tokenizer)
        assert tokens == oracle


BYTE_TEXT = st.text(st.sampled_from("ab .\n\t:é😀A"), min_size=1, max_size=12).filter(str.strip)
WORD_TEXT = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)


@st.composite
def samples(draw, text):
    """Conversations of any number of turns, images and texts, with plain texts between them."""

    def content() -> tuple:
        parts = draw(st.lists(st.one_of(st.just(PICTURE), text), min_size=1, max_size=3))
        followed = pairwise([*parts, PICTURE])  # neighbouring texts would be one text
        return tuple(part for part, after in followed if not (isinstance(part, str) and isinstance(after, str)))

    def conversation() -> tuple[Turn, ...]:
        turns = []
        for _ in range(draw(st.integers(1, 3))):
            turns += [Turn("user", content()), Turn("assistant", (draw(text),))]
        return tuple(turns)

    segments: list = []
    for _ in range(draw(st.integers(1, 3))):
        after_text = segments and isinstance(segments[-1], PlainText)
        segments.append(conversation() if after_text or draw(st.booleans()) else PlainText(draw(text)))
    return CalibrationSample("s", tuple(segments))


@settings(max_examples=60)
@given(data=st.data(), name=st.sampled_from(TINY))
def test_any_conversation_word_by_word(processor_of, data, name):
    processor = processor_of(name)
    sample = data.draw(samples(WORD_TEXT))
    fragments = tiny_fragments(sample, picture(name, len(sample.images)))
    assert found(sample, processor)[1] == by_word(fragments, processor.tokenizer)


@settings(max_examples=120)
@given(data=st.data(), name=st.sampled_from(TINY))
def test_any_conversation_byte_by_byte(processor_of, data, name):
    """Line breaks that merge, spaces at the ends, letters of several tokens."""
    processor = processor_of(name, byte_level=True)
    sample = data.draw(samples(BYTE_TEXT))
    ids, tokens = found(sample, processor)
    fragments = tiny_fragments(sample, picture(name, len(sample.images)))
    assert tokens == by_byte(fragments, ids, processor.tokenizer)


def test_merges_across_the_template_are_met(processor_of):
    """The byte-level tokenizer really makes tokens of a template's line break and a text's."""
    processor = processor_of("tiny_qwen2_vl", byte_level=True)
    _, tokens = found(CalibrationSample("s", ((user("\n\nimage"), assistant("red")),)), processor)
    merged = [token for token, kind, _ in tokens if kind == TokenKind.PROMPT]
    assert processor.tokenizer.decode(merged).startswith("\n\n\n")


def test_a_token_of_a_text_and_the_template_behind_it_is_text(processor_of, monkeypatch):
    """Without a control token behind a text its last line break merges with the template's."""
    processor = processor_of("tiny_qwen2_vl", byte_level=True)
    bare = "{% for m in messages %}{{ m.role }}\n{% for p in m.content %}"
    bare += "{{ p.text }}{% endfor %}{{ '\\n\\n' }}{% endfor %}"
    monkeypatch.setattr(processor, "chat_template", bare)
    fragments = []
    for role, text, kind in (("user", "image\n", TokenKind.PROMPT), ("assistant", "red\n", TokenKind.ANSWER)):
        own = (text, kind, kind == TokenKind.ANSWER)
        fragments += [(f"{role}\n", TokenKind.SPECIAL, False), own, ("\n\n", TokenKind.SPECIAL, False)]
    ids, tokens = found(CalibrationSample("s", ((user("image\n"), assistant("red\n")),)), processor)
    assert tokens == by_byte(fragments, ids, processor.tokenizer)
    assert processor.tokenizer.decode([i for i, kind, _ in tokens if kind == TokenKind.PROMPT]) == "image\n\n"


@pytest.mark.parametrize("written", [False, True], ids=["added by the tokenizer", "written by the template"])
def test_a_beginning_of_text_token_is_special_and_stands_once(processor_of, no_model, monkeypatch, written):
    """As in Llama's family: plain texts get it from the tokenizer, conversations from either."""
    processor = copy.copy(processor_of("tiny_internvl", byte_level=True))
    monkeypatch.setattr(processor, "tokenizer", copy.deepcopy(processor.tokenizer))
    processor.tokenizer.bos_token = "<|endoftext|>"
    begin = processor.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    processor.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", begin)]
    )
    if written:
        processor.chat_template = "<|endoftext|>" + processor.chat_template
    corpus = [
        CalibrationSample("plain", (PlainText("image shows red"),)),
        single_turn("conversation", [], "image", "red"),
        single_turn("pictured", [PICTURE], "image", "red"),
    ]
    batches = collate(corpus, processor, no_model, image_ids(processor), 10_000)
    for batch in batches:
        for row in range(len(batch.ids)):
            ids = batch.inputs["input_ids"][row][batch.real[row]].tolist()
            assert ids[0] == begin and ids.count(begin) == 1
            assert batch.kinds[row, 0] == TokenKind.SPECIAL and batch.labels[row, 0] == IGNORE
    assert sorted(len(batch.ids) for batch in batches) == ([1, 1, 1] if written else [1, 2])


@pytest.mark.parametrize("limit", [1, 3, 7, 500])
def test_plain_text_is_cut_to_tokens(processor_of, limit):
    text = "describe the image\n\nin detail.\n naïve café 😀 shows a red seven " * 3
    for byte_level in (False, True):
        processor = processor_of("tiny_internvl", byte_level)
        full = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        ids, _ = found(CalibrationSample("s", (PlainText(text, limit),)), processor)
        assert ids == full[:limit]


TEMPLATES = {
    "strips": "{% for m in messages %}[{{ m.role }}] {% for p in m.content %}{% if p.type == 'image' %}<|image_pad|>"
    "{% else %}{{ p.text | trim }}{% endif %}{% endfor %}<|im_end|>{% endfor %}",
    "images first": "system text{% for m in messages %}[{{ m.role }}]{% for p in m.content if p.type == 'image' %}"
    "<|image_pad|>{% endfor %}{% for p in m.content if p.type == 'text' %}\n{{ p.text }}{% endfor %}<|im_end|>"
    "{% endfor %}",
    "by position": "{% for m in messages %}{{ m.role | capitalize }}{% if m.content[0].type == 'image' %}:{% else %}: "
    "{% endif %}{% for p in m.content %}{% if p.type == 'image' %}<|image_pad|>{% else %}{{ p.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}",
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_templates_of_other_layouts(processor_of, template, monkeypatch):
    """The texts are found whatever the template does around them; what it adds is special."""
    processor = processor_of("tiny_internvl", byte_level=True)
    monkeypatch.setattr(processor, "chat_template", TEMPLATES[template])
    turns = (user("one \n", PICTURE, " two"), assistant(" assistant: three"), user("four"), assistant("\nfive "))
    encoded = encode(CalibrationSample("s", (turns,)), processor, image_ids(processor))
    assert sum(kind == TokenKind.VISION for kind in encoded.kinds) == 36

    def text_of(kind: TokenKind) -> str:
        return processor.tokenizer.decode([i for i, k in zip(encoded.ids, encoded.kinds, strict=True) if k == kind])

    assert "".join(text_of(TokenKind.PROMPT).split()) == "onetwofour"
    assert "".join(text_of(TokenKind.ANSWER).split()) == "assistant:threefive"
    learned = processor.tokenizer.decode([i for i, known in zip(encoded.ids, encoded.learned, strict=True) if known])
    assert "".join(learned.split()) == "assistant:three<|im_end|>five<|im_end|>"


BAD_TEMPLATES = {
    "drops": "{% for m in messages %}{{ m.role }}<|im_end|>{% endfor %}",
    "repeats": "{% for m in messages %}{% for p in m.content %}{{ p.text }}{{ p.text }}{% endfor %}{% endfor %}",
    "changes": "{% for m in messages %}{% for p in m.content %}{{ p.text | upper }}{% endfor %}{% endfor %}",
    "refuses": "{{ raise_exception('roles must alternate') }}",
    "broken": "{{ messages[7].content }}",
}


@pytest.mark.parametrize("template", BAD_TEMPLATES)
def test_templates_that_lose_the_texts_are_refused(processor_of, template, monkeypatch):
    processor = processor_of("tiny_internvl")
    monkeypatch.setattr(processor, "chat_template", BAD_TEMPLATES[template])
    with pytest.raises(DataError, match="calibration sample s cannot be rendered"):
        encode(single_turn("s", [], "image", "red"), processor, image_ids(processor))


def test_template_that_loses_an_image_is_refused(processor_of, monkeypatch):
    processor = processor_of("tiny_qwen2_vl")
    only_texts = "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}<|im_end|>{% endfor %}"
    monkeypatch.setattr(processor, "chat_template", only_texts)
    with pytest.raises(DataError, match=r"calibration sample s cannot be processed: .* 0 .* 1 images"):
        encode(single_turn("s", [PICTURE], "image", "red"), processor, image_ids(processor))


@pytest.mark.parametrize("token", ["<|im_end|>", "<|image_pad|>", "<|endoftext|>", "<|video_pad|>"])
@pytest.mark.parametrize("where", ["prompt", "answer", "plain"])
def test_control_tokens_in_texts_are_refused(processor_of, any_tiny, token, where):
    prompt, answer = (f"image {token} red" if where == part else "image" for part in ("prompt", "answer"))
    segment = PlainText(f"image {token}") if where == "plain" else single_turn("s", [], prompt, answer).segments[0]
    with pytest.raises(DataError, match=r"calibration sample bad .*control token '<\|"):
        encode(CalibrationSample("bad", (segment,)), processor_of(any_tiny), {0})


@settings(max_examples=25)
@given(data=st.data(), name=st.sampled_from(TINY), budget=st.integers(1, 500))
def test_batches_hold_what_single_samples_hold(processor_of, no_model, data, name, budget):
    """Whatever shares a micro-batch: every row is its sample's tokens, kinds and labels, then padding."""
    processor = processor_of(name, byte_level=True)
    corpus = data.draw(st.lists(samples(BYTE_TEXT), min_size=1, max_size=5))
    batches = collate(corpus, processor, no_model, image_ids(processor), budget)
    assert sorted(position for batch in batches for position in batch.order) == list(range(len(corpus)))
    for batch in batches:
        assert len({bool(corpus[position].images) for position in batch.order}) == 1
        assert batch.kinds.numel() <= budget or len(batch.ids) == 1
        for row, position in enumerate(batch.order):
            alone = encode(corpus[position], processor, image_ids(processor))
            length = len(alone.ids)
            assert batch.inputs["input_ids"][row, :length].tolist() == alone.ids
            assert batch.kinds[row, :length].tolist() == alone.kinds.tolist()
            assert not batch.kinds[row, length:].any()
            expected = [i if learned else IGNORE for i, learned in zip(alone.ids, alone.learned, strict=True)]
            assert batch.labels[row].tolist() == expected + [IGNORE] * (batch.labels.shape[1] - length)
