import pytest
from PIL import Image

from families.table import LANGUAGE
from qig.errors import EvaluationError
from qig.evaluation.prompts import around_answer, chat_conversation, encode, render, simple_conversation
from qig.evaluation.protocols import PLAIN
from qig.models.architectures import architecture_of
from qig.models.classes import processor_of


class Template:
    """A processor that only renders: ``turn`` formats one turn, ``prompt`` is where an answer begins."""

    def __init__(self, turn, prompt=""):
        self.turn, self.prompt = turn, prompt

    def apply_chat_template(self, conversation, tokenize, add_generation_prompt=False):
        assert not tokenize
        turns = "".join(self.turn(turn["role"], turn["content"][0]["text"]) for turn in conversation)
        return turns + self.prompt * add_generation_prompt


USER = [{"role": "user", "content": [{"type": "text", "text": "q"}]}]


def test_lmms_eval_messages_become_a_conversation():
    image = Image.new("RGB", (2, 2))
    messages = [{"role": "user", "content": [{"type": "image", "url": image}, {"type": "text", "text": "hi"}]}]
    assert chat_conversation(messages, PLAIN) == [
        {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "hi"}]}
    ]
    assert simple_conversation([image], "<image>hi", PLAIN) == chat_conversation(messages, PLAIN)
    with pytest.raises(EvaluationError, match="unknown message content 'video'; choose from: image, text"):
        chat_conversation([{"role": "user", "content": [{"type": "video", "url": "x.mp4"}]}], PLAIN)


def test_what_stands_around_an_answer():
    assert around_answer(Template(lambda role, text: f"<{role}>{text}<end>\n"), USER) == ("", "<end>")
    assert around_answer(Template(lambda role, text: f"{role}: {text} "), USER) == ("", "")
    colon = Template(lambda role, text: f"{role}: {text}<end>", "assistant:")
    assert around_answer(colon, USER) == (" ", "<end>")
    thinking = Template(lambda role, text: f"{role}\n{'<thought></thought>' * (role != 'user')}{text}.", "assistant\n")
    assert around_answer(thinking, USER) == ("", ".")
    with pytest.raises(EvaluationError, match="drops the assistant's answer"):
        around_answer(Template(lambda role, text: text if role == "user" else ""), USER)


def test_encode_pads_on_the_side_asked_for(model_and_processor, conversations):
    _, processor = model_and_processor
    image, text = conversations[1][0]["content"]
    pair = [conversations[0], [{"role": "user", "content": [image, text, text, text]}]]
    texts = render(processor, pair)
    left = encode(processor, texts, pair, PLAIN, padding_side="left")["attention_mask"]
    right = encode(processor, texts, pair, PLAIN, padding_side="right")["attention_mask"]
    assert left[0].tolist() == sorted(left[0].tolist()) and left[0, 0] == 0
    assert right[0].tolist() == left[0].tolist()[::-1]
    assert left[1].all() and right[1].all()


def test_one_batch_may_hold_prompts_without_an_image(model_and_processor, conversations):
    _, processor = model_and_processor
    mixed = [USER, conversations[0]]
    inputs = encode(processor, render(processor, mixed), mixed, PLAIN, padding_side="left")
    alone = encode(processor, render(processor, mixed[1:]), mixed[1:], PLAIN, padding_side="left")
    assert inputs["input_ids"][1].tolist() == alone["input_ids"][0].tolist()
    assert inputs["pixel_values"].equal(alone["pixel_values"])


@pytest.mark.parametrize("name", LANGUAGE)
def test_a_prompt_has_the_tokens_of_its_template_and_begins_once(family_checkpoint, name):
    """Mistral's template writes the token with which its tokenizer begins a text, too."""
    processor = processor_of(family_checkpoint(name), architecture_of(name))
    made = encode(processor, render(processor, [USER]), [USER], PLAIN, padding_side="left")
    turns = [{"role": "user", "content": "q"}]
    options = {"tokenize": True, "return_dict": True, "add_generation_prompt": True}
    assert made["input_ids"][0].tolist() == processor.tokenizer.apply_chat_template(turns, **options)["input_ids"]
    begin = processor.tokenizer.convert_tokens_to_ids("<s>")
    assert name != "mistral" or made["input_ids"][0].tolist().count(begin) == 1
