from itertools import count

import pytest
import torch

from qig.evaluation.generation import generate_answers
from qig.evaluation.likelihood import answer_nll
from qig.evaluation.overheard import overheard
from qig.evaluation.protocols import PLAIN

OPTIONS = {"max_new_tokens": 6}


def heard(model, processor, conversations, answers, options=OPTIONS):
    with overheard(model, processor, conversations, answers) as known:
        texts = generate_answers(model, processor, conversations, options, PLAIN)
    assert not model._forward_hooks
    return texts, known


@pytest.fixture
def own_words(model_and_processor, conversations):
    """What an untrained model says in one to three words, as if it were right."""
    by_length = [generate_answers(*model_and_processor, conversations, {"max_new_tokens": n}, PLAIN) for n in (1, 2, 3)]
    return [by_length[index % 3][index] or None for index in range(len(conversations))]


def test_what_the_model_says_itself_has_the_likelihood_of_a_pass_of_its_own(
    model_and_processor, conversations, own_words
):
    texts, known = heard(*model_and_processor, conversations, own_words)
    assert texts == generate_answers(*model_and_processor, conversations, OPTIONS, PLAIN)
    told = [i for i, value in enumerate(known) if value is not None]
    assert len(told) > len(conversations) / 2 and len({own_words[i] for i in told}) > 2
    assert all(texts[i].startswith(own_words[i]) for i in told)
    expected = answer_nll(*model_and_processor, [conversations[i] for i in told], [own_words[i] for i in told], PLAIN)
    assert [known[i] for i in told] == pytest.approx(expected, abs=1e-4)


def test_other_answers_are_left_to_a_pass_of_their_own(model_and_processor, conversations, own_words):
    _, before = heard(*model_and_processor, conversations, own_words)
    told = [i for i, value in enumerate(before) if value is not None]
    wrong, missing, half = told[0], told[1], next(i for i in told if " " in own_words[i])
    answers = list(own_words)
    answers[wrong], answers[missing] = "red" if own_words[wrong] != "red" else "blue", None
    answers[half] = own_words[half].split()[0] + " and"  # right at first
    _, known = heard(*model_and_processor, conversations, answers)
    assert [i for i in told if known[i] is None] == sorted({wrong, missing, half})
    assert heard(*model_and_processor, conversations, [None] * len(conversations))[1] == [None] * len(conversations)


def test_an_answer_that_the_model_ends_itself_while_others_go_on(internvl, conversations):
    model, processor = internvl
    asked, steps = conversations[:3], count()
    own = generate_answers(model, processor, asked, {"max_new_tokens": 1}, PLAIN)[0]
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")

    def end_the_first(_module, _args, logits):
        if next(steps):
            logits[0, -1, end] = 1e4

    with model.get_output_embeddings().register_forward_hook(end_the_first):
        texts, known = heard(model, processor, asked, [own, None, None])
    assert texts[0] == own and len(texts[1].split()) > 2
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    with torch.no_grad():
        scores = model(**processor.apply_chat_template(asked[:1], **options)).logits[0, -1].log_softmax(-1)
    word = processor.tokenizer.convert_tokens_to_ids(own)
    assert known == [pytest.approx(-scores[word].item(), abs=1e-4), None, None]  # and 0 for the end


def test_answers_that_break_off_and_beams_are_not_heard(model_and_processor, conversations, own_words):
    nothing = [None] * len(conversations)
    assert heard(*model_and_processor, conversations, own_words, {"max_new_tokens": 1})[1] == nothing
    assert heard(*model_and_processor, conversations, own_words, OPTIONS | {"num_beams": 2})[1] == nothing


def test_the_models_own_logits_count_whatever_generation_makes_of_them(internvl, conversations, monkeypatch):
    model, processor = internvl
    own = generate_answers(model, processor, conversations, {"max_new_tokens": 1}, PLAIN)
    _, before = heard(model, processor, conversations, own)
    monkeypatch.setattr(model.generation_config, "repetition_penalty", 1.0001)
    _, known = heard(model, processor, conversations, own)
    assert known == before and any(value is not None for value in known)


def test_what_is_not_a_number_is_not_told(internvl, conversations):
    model, processor = internvl
    own = generate_answers(model, processor, conversations, {"max_new_tokens": 1}, PLAIN)

    assert any(value is not None for value in heard(model, processor, conversations, own)[1])
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")

    def never_end(_module, _args, logits):
        logits[..., end] = -torch.inf  # no error: generation rules tokens out so, too

    with model.get_output_embeddings().register_forward_hook(never_end):
        own = generate_answers(model, processor, conversations, {"max_new_tokens": 1}, PLAIN)
        assert heard(model, processor, conversations, own)[1] == [None] * len(conversations)
    with overheard(model, processor, conversations[:1], own[:1]) as known:
        pass
    assert known == [None]
