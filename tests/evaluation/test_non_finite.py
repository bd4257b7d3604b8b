"""A model whose scores are not numbers is refused with the document, instead of answering with the first token."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from qig.errors import NonFiniteError
from qig.evaluation.benchmark import evaluate
from qig.evaluation.generation import generate_answers
from qig.evaluation.likelihood import answer_nll
from qig.evaluation.protocols import PLAIN


@contextmanager
def spoiled(model, row: int, value: float, after: int = 0):
    """The scores of one row hold ``value`` from the forward pass number ``after`` on."""
    calls = []

    def hook(_module, _args, output):
        calls.append(None)
        if len(calls) > after and len(output) > row:
            output = output.clone()
            output[row, :, 5] = value
        return output

    handle = model.get_output_embeddings().register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize(("value", "after"), [(torch.nan, 0), (torch.inf, 0), (torch.nan, 2)])
def test_answers(internvl, conversations, value, after):
    model, processor = internvl
    with spoiled(model, 2, value, after), pytest.raises(NonFiniteError, match="next token at sample 2"):
        generate_answers(model, processor, conversations[:4], {"max_new_tokens": 4}, PLAIN)


def test_beams(internvl, conversations):
    model, processor = internvl
    with spoiled(model, 5, torch.nan), pytest.raises(NonFiniteError, match="next token at sample 2"):
        generate_answers(model, processor, conversations[:4], {"max_new_tokens": 4, "num_beams": 2}, PLAIN)


def test_a_token_that_is_ruled_out_is_no_harm(internvl, conversations):
    model, processor = internvl
    with spoiled(model, 2, -torch.inf):
        assert len(generate_answers(model, processor, conversations[:4], {"max_new_tokens": 4}, PLAIN)) == 4


def test_likelihoods(internvl, conversations, targets):
    model, processor = internvl
    with spoiled(model, 1, torch.nan), pytest.raises(NonFiniteError, match="likelihoods at sample 1: "):
        answer_nll(model, processor, conversations[:3], targets[:3], PLAIN)


def test_the_chat_model_names_the_document(internvl, questions):
    from qig.evaluation.chat_model import QigChatModel

    def messages(doc):
        return [{"role": "user", "content": [{"type": "image", "url": doc.image}, {"type": "text", "text": "what ?"}]}]

    lm = QigChatModel(model=internvl[0], processor=internvl[1], batch_size=2)
    lm.task_dict = {"task": {"test": questions}}
    requests = [
        SimpleNamespace(args=("what ?", messages, {"max_new_tokens": 2}, doc, "task", "test")) for doc in (7, 9)
    ]
    with spoiled(lm.model, 1, torch.nan), pytest.raises(NonFiniteError, match="sample 9 of task 'task', split 'test'"):
        lm.generate_until(requests)


def test_a_benchmark_names_the_document_whose_likelihood_is_no_number(internvl):
    model, processor = internvl
    options = {"tasks": ["qig_digitgrid"], "protocol": "plain", "limit": 4, "batch_size": 4, "seed": 0, "nll": True}

    def hook(_module, _args, output):
        return output if output.shape[1] == 1 else output * torch.nan  # only likelihoods look at several places

    handle = model.get_output_embeddings().register_forward_hook(hook)
    try:
        with pytest.raises(NonFiniteError, match=r"likelihoods at sample \d of task 'qig_digitgrid', split"):
            evaluate(model, processor, **options)
    finally:
        handle.remove()
