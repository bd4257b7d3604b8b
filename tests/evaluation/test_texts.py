"""Likelihood of running text against transformers' own loss, one text at a time and without padding."""

from __future__ import annotations

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from families.table import LANGUAGE
from qig.config.schema import Model, Outliers, TextEvaluation
from qig.data.python_docs import EVALUATION, content_hash, passages
from qig.errors import EvaluationError, NonFiniteError
from qig.evaluation.benchmark import evaluate
from qig.evaluation.texts import likelihoods
from qig.models.loading import load

TEXTS = ["the image shows a red 7", "a blue 4 and a green 5 are in row 1 column 2 of the picture . " * 3, "red blue"]
OPTIONS = {"tasks": [], "protocol": "plain", "batch_size": 3, "seed": 0, "nll": True}


def language_model(folder):
    return load(Model("x", str(folder), "float32", Outliers(0.0, 0)), torch.device("cpu"))


@pytest.mark.parametrize("name", LANGUAGE)
@pytest.mark.parametrize("window", [6, 1000])
def test_each_text_by_itself(family_checkpoint, name, window):
    loaded = language_model(family_checkpoint(name))
    found = likelihoods(loaded.model, loaded.processor, TEXTS, window)
    for text, (nll, right) in zip(TEXTS, found, strict=True):
        ids = torch.tensor(loaded.processor.tokenizer(text)["input_ids"][:window])[None]
        with torch.no_grad():
            output = loaded.model(input_ids=ids, labels=ids)  # transformers shifts the labels
        assert nll == pytest.approx(float(output.loss), rel=1e-5)
        expected = (output.logits[0, :-1].argmax(-1) == ids[0, 1:]).float().mean()
        assert right == pytest.approx(float(expected))


@pytest.mark.parametrize("window", [6, 1000])
def test_a_token_that_the_tokenizer_puts_at_the_end_is_not_asked_for(family_checkpoint, window):
    loaded = language_model(family_checkpoint("llama"))
    tokenizer = loaded.processor.tokenizer
    plain = [tokenizer(text)["input_ids"][: window - 1] for text in TEXTS]  # one of the window is the token at the end
    end = (tokenizer.eos_token, tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(f"$A {end[0]}", special_tokens=[end])
    assert tokenizer("red")["input_ids"][-1] == tokenizer.eos_token_id
    for ids, (nll, _) in zip(plain, likelihoods(loaded.model, loaded.processor, TEXTS, window), strict=True):
        ids = torch.tensor(ids)[None]
        with torch.no_grad():
            assert nll == pytest.approx(float(loaded.model(input_ids=ids, labels=ids).loss), rel=1e-5)


@pytest.mark.parametrize("name", ["tiny_qwen2_vl", "tiny_llava_onevision", "tiny_internvl"])
def test_running_text_beside_questions(untrained, name):
    """A vision-language model reads it, too; each task has its own records and numbers."""
    model, processor = untrained(name)
    text = TextEvaluation("python_docs", 24)
    found = evaluate(model, processor, text=text, limit=2, **OPTIONS | {"tasks": ["qig_digitgrid"]})
    assert [sample["task"] for sample in found.samples] == ["qig_digitgrid"] * 2 + ["python_docs"] * 2
    assert {task: values["n"] for task, values in found.metrics.items()} == {"qig_digitgrid": 2, "python_docs": 2}
    assert found.protocol["name"] == "plain" and found.protocol["text"]["window"] == 24
    for passage, sample in zip(passages(EVALUATION), found.samples[2:], strict=False):
        ids = torch.tensor(processor.tokenizer(passage.text)["input_ids"][:24])[None]
        with torch.no_grad():
            assert sample["nll"] == pytest.approx(float(model(input_ids=ids, labels=ids).loss), rel=1e-4)


def test_a_text_without_a_second_token_is_refused(family_checkpoint):
    loaded = language_model(family_checkpoint("llama"))
    with pytest.raises(EvaluationError, match="fewer than two tokens: '7'"):
        likelihoods(loaded.model, loaded.processor, ["red blue", "7"], 10)


def test_evaluation_of_running_text(family_checkpoint):
    loaded = language_model(family_checkpoint("llama"))
    text = TextEvaluation("python_docs", 32)
    result = evaluate(loaded.model, loaded.processor, text=text, limit=5, **OPTIONS)
    chosen = passages(EVALUATION)[:5]
    assert [sample["sample"] for sample in result.samples] == [passage.name for passage in chosen]
    assert [sample["cluster"] for sample in result.samples] == [passage.document for passage in chosen]
    assert [sample["type"] for sample in result.samples] == [passage.name.split("/")[0] for passage in chosen]
    pairs = [likelihoods(loaded.model, loaded.processor, [passage.text], 32)[0] for passage in chosen]
    alone, right = ([pair[place] for pair in pairs] for place in (0, 1))
    assert [sample["score"] for sample in result.samples] == right and max(right) <= 1
    assert [sample["nll"] for sample in result.samples] == pytest.approx(alone, rel=1e-5)
    metrics = result.metrics["python_docs"]
    assert metrics["nll"] == pytest.approx(sum(alone) / 5)
    assert metrics["metric"] == "top1" and metrics["accuracy"] == pytest.approx(sum(right) / 5)
    assert result.protocol["text"] == {"corpus": "python_docs", "window": 32, "sha256": content_hash(EVALUATION)}


def test_nothing_to_evaluate_on_is_refused(family_checkpoint):
    with pytest.raises(EvaluationError, match=r"got tasks \[\]"):
        evaluate(None, None, text=None, limit=5, **OPTIONS)


def test_a_passage_whose_likelihood_is_no_number_is_named(family_checkpoint):
    loaded = language_model(family_checkpoint("llama"))
    third = loaded.processor(text=[passages(EVALUATION)[2].text], return_tensors="pt")["input_ids"][0][:32].tolist()

    def hook(_module, args, kwargs, output):
        for row, ids in enumerate(kwargs["input_ids"].tolist()):
            if ids[:20] == third[:20]:
                output.logits[row] = torch.nan
        return output

    handle = loaded.model.register_forward_hook(hook, with_kwargs=True)
    try:
        with pytest.raises(NonFiniteError, match=f"likelihoods at sample {passages(EVALUATION)[2].name}:"):
            evaluate(loaded.model, loaded.processor, text=TextEvaluation("python_docs", 32), limit=5, **OPTIONS)
    finally:
        handle.remove()
