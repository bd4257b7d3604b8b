import pytest
import torch

from qig.evaluation.generation import cut, generate_answers
from qig.evaluation.protocols import PLAIN


def alone(model, processor, conversation, max_new_tokens):
    inputs = processor.apply_chat_template(
        [conversation], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    with torch.no_grad():
        tokens = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    return processor.tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def test_a_batch_answers_as_one_by_one(model_and_processor, conversations):
    expected = [alone(*model_and_processor, conversation, 6) for conversation in conversations[:6]]
    assert generate_answers(*model_and_processor, conversations[:6], {"max_new_tokens": 6}, PLAIN) == expected
    assert len(set(expected)) > 1


def test_greedy_unless_the_task_samples(internvl, conversations, monkeypatch):
    model, processor = internvl
    given = []
    monkeypatch.setattr(model.generation_config, "do_sample", True)
    generate = model.generate
    monkeypatch.setattr(model, "generate", lambda **options: given.append(options) or generate(**options))
    greedy = generate_answers(model, processor, conversations[:2], {"temperature": 0, "max_new_tokens": 3}, PLAIN)
    ignored = {"image_aspect_ratio": "original", "max_new_tokens": 3, "do_sample": True}
    assert generate_answers(model, processor, conversations[:2], ignored, PLAIN) == greedy
    generate_answers(model, processor, conversations[:2], {"temperature": 0.7, "max_new_tokens": 3}, PLAIN)
    assert [options["do_sample"] for options in given] == [False, False, True]
    assert [options["temperature"] for options in given] == [None, None, 0.7]


def test_a_plain_answer_ends_where_the_task_says_or_the_checkpoint(internvl, conversations, monkeypatch):
    model, processor = internvl

    def answer(asked, **options):
        return generate_answers(model, processor, [asked], {"max_new_tokens": 6, **options}, PLAIN)[0]

    whole = ((asked, answer(asked).split()) for asked in conversations)
    ends = ((asked, said, place) for asked, said in whole for place in range(1, len(said)))
    # The first word that is no part of what was said before it.
    asked, said, place = next(end for end in ends if end[1][end[2]] not in " ".join(end[1][: end[2]]))
    assert answer(asked, until=[said[place]]) == " ".join(said[:place])
    stop = processor.tokenizer.convert_tokens_to_ids(said[place])
    assert stop != processor.tokenizer.eos_token_id
    monkeypatch.setattr(model.generation_config, "eos_token_id", [stop])
    assert answer(asked) == " ".join(said[: place + 1])


@pytest.mark.parametrize(
    ("until", "expected"),
    [(None, " a\n\nb. c "), ("\n\n", " a"), (["."], " a\n\nb"), ([".", "\n"], " a"), (["", "x"], " a\n\nb. c ")],
)
def test_answers_end_at_the_first_stop_string(until, expected):
    assert cut(" a\n\nb. c ", until) == expected
