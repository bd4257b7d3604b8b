import inspect

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from qig.errors import EvaluationError
from qig.evaluation.likelihood import answer_nll
from qig.evaluation.prompts import Conversation
from qig.evaluation.protocols import PLAIN


def alone(model, processor, conversation: Conversation, answer: str) -> float:
    """One sample at a time by the processor's own tokenizing template, without padding."""
    turn = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    prompt = processor.apply_chat_template([conversation], add_generation_prompt=True, **options)
    whole = processor.apply_chat_template([[*conversation, turn]], **options)
    start = prompt["input_ids"].shape[1]
    with torch.no_grad():
        logits = model(**whole).logits[0]
    target = whole["input_ids"][0, start:]
    return -logits[start - 1 : -1].double().log_softmax(-1)[range(len(target)), target].sum().item()


def test_equals_one_sample_at_a_time(model_and_processor, conversations, targets):
    expected = [alone(*model_and_processor, *pair) for pair in zip(conversations[:7], targets[:7], strict=True)]
    assert answer_nll(*model_and_processor, conversations[:7], targets[:7], PLAIN) == pytest.approx(expected, abs=1e-4)


def test_does_not_depend_on_the_batch(model_and_processor, conversations, targets):
    pairs = zip(conversations, targets, strict=True)
    by_one = [answer_nll(*model_and_processor, [c], [t], PLAIN)[0] for c, t in pairs]
    assert answer_nll(*model_and_processor, conversations, targets, PLAIN) == pytest.approx(by_one, abs=1e-4)


def test_same_batch_same_bits(internvl, conversations, targets):
    first = answer_nll(*internvl, conversations, targets, PLAIN)
    assert answer_nll(*internvl, conversations, targets, PLAIN) == first


def test_works_where_logits_cannot_be_selected(internvl, conversations, targets, monkeypatch):
    model, processor = internvl
    selected = answer_nll(model, processor, conversations[:8], targets[:8], PLAIN)
    forward = model.forward

    def plain(input_ids, attention_mask, pixel_values, use_cache):
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "pixel_values": pixel_values}
        return forward(**inputs, use_cache=use_cache)

    monkeypatch.setattr(model, "forward", plain)
    assert "logits_to_keep" not in inspect.signature(model.forward).parameters
    assert answer_nll(model, processor, conversations[:8], targets[:8], PLAIN) == pytest.approx(selected, abs=1e-5)


def test_a_template_whose_answer_header_differs_from_its_prompt(internvl, conversations, monkeypatch):
    """As LLaVA-OneVision's, which writes a space after ``assistant`` unless it is the prompt."""
    model, processor = internvl
    expected = answer_nll(model, processor, conversations[:3], ["red"] * 3, PLAIN)
    header = "<|im_start|>{{ message['role'] }}"
    other = header + "{{ ' .' if message['role'] == 'assistant' }}"
    assert header in processor.chat_template
    monkeypatch.setattr(processor, "chat_template", processor.chat_template.replace(header, other))
    turn = {"role": "assistant", "content": "red"}
    assert "assistant ." in processor.apply_chat_template([*conversations[0], turn])
    assert answer_nll(model, processor, conversations[:3], ["red"] * 3, PLAIN) == expected


def test_the_space_that_a_template_writes_before_an_answer(family_checkpoint, conversations):
    """SmolVLM was trained on ``Assistant: red``, and its prompt ends with the colon."""
    folder = family_checkpoint("smolvlm")
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    conversation = conversations[0]
    turn = {"role": "assistant", "content": [{"type": "text", "text": "red"}]}
    whole = processor.apply_chat_template([*conversation, turn]).rstrip()
    answer = " red<end_of_utterance>"
    assert whole.endswith(f"Assistant:{answer}")
    inputs = processor(
        text=[whole], images=[[conversation[0]["content"][0]["image"]]], add_special_tokens=False, return_tensors="pt"
    )
    ids = processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        scores = model(**inputs).logits[0].double().log_softmax(-1)
    assert inputs["input_ids"][0, -len(ids) :].tolist() == ids
    expected = -sum(scores[at - len(ids) - 1, token].item() for at, token in enumerate(ids))
    assert answer_nll(model, processor, [conversation], ["red"], PLAIN) == pytest.approx([expected], abs=1e-4)


def test_mistakes_are_named(internvl, conversations):
    with pytest.raises(EvaluationError, match="2 conversations and 1 answers"):
        answer_nll(*internvl, conversations[:2], ["red"], PLAIN)
    with pytest.raises(EvaluationError, match="1 empty answers"):
        answer_nll(*internvl, conversations[:2], ["red", ""], PLAIN)


def test_tokens_that_merge_with_the_prompt_are_refused(internvl, conversations, monkeypatch):
    model, processor = internvl
    # Without the line ends, "assistant" and the answer are one word.
    glued = processor.chat_template
    for header in ("<|im_start|>assistant", "<|im_start|>{{ message['role'] }}"):
        assert f"{header}\n" in glued
        glued = glued.replace(f"{header}\n", header)
    monkeypatch.setattr(processor, "chat_template", glued)
    with pytest.raises(EvaluationError, match="merge with the prompt's"):
        answer_nll(model, processor, conversations[:2], ["red", "blue"], PLAIN)


def test_half_precision(conversations, targets):
    from qig.evaluation.generation import generate_answers
    from qig.models.tiny.build import build_model
    from qig.models.tiny.processors import build_processor

    model, processor = build_model("tiny_qwen2_vl", seed=4).eval(), build_processor("tiny_qwen2_vl")
    exact = answer_nll(model, processor, conversations[:6], targets[:6], PLAIN)
    model.to(torch.bfloat16)
    assert answer_nll(model, processor, conversations[:6], targets[:6], PLAIN) == pytest.approx(exact, rel=0.05)
    assert len(generate_answers(model, processor, conversations[:2], {"max_new_tokens": 2}, PLAIN)) == 2
