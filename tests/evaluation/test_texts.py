"""Likelihood of running text against transformers' own loss, one text at a time and without padding."""

from __future__ import annotations

import math

import pytest
import torch

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
    alone = [likelihoods(loaded.model, loaded.processor, [passage.text], 32)[0][0] for passage in chosen]
    assert [sample["nll"] for sample in result.samples] == pytest.approx(alone, rel=1e-5)
    metrics = result.metrics["python_docs"]
    assert metrics["nll"] == pytest.approx(sum(alone) / 5) and math.isfinite(metrics["accuracy"])
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
