"""Likelihood of running text, passage by passage: what language models are compared by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from qig.config.schema import TextEvaluation
from qig.data.python_docs import EVALUATION, Passage, content_hash, passages
from qig.errors import EvaluationError, NonFiniteError

from .journal import Journal
from .ranks import Ranks

METRIC = "top1"


def text_samples(
    model, processor, text: TextEvaluation, limit: int | None, batch_size: int, ranks: Ranks, journal: Journal
) -> list[dict[str, Any]]:
    """A record a passage, of the form of an answered question's.

    ``nll`` is the mean negative log-likelihood of the passage's tokens in nats, each given those before it (the first
    is not asked for, nor what the tokenizer adds); ``exp`` of its mean over passages is the perplexity. ``score`` is
    the share of tokens that the model holds most likely, ``cluster`` the document that the passage is from.

    Raises:
        DataError: the corpus is not there.
        EvaluationError: a passage has fewer than two tokens.
        NonFiniteError: a likelihood is not a number; names the passage.
    """
    chosen = passages(EVALUATION)[:limit]
    batches = [chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size)]
    with tqdm(total=len(batches), desc="text", unit="batch", disable=not ranks.is_main or None) as progress:

        def of_batch(_number: int, batch: Sequence[Passage]) -> list[tuple[float, float]]:
            values = likelihoods(model, processor, [passage.text for passage in batch], text.window)
            for passage, (nll, _) in zip(batch, values, strict=True):
                if not math.isfinite(nll):
                    raise NonFiniteError("likelihoods", f"their mean is {nll}", sample=passage.name)
            return values

        kept = journal.kept("text", lambda batch: [passage.name for passage in batch], of_batch)

        def work(numbered: tuple[int, Sequence[Passage]]) -> list[tuple[float, float]]:
            done = kept(numbered)
            progress.update(ranks.size)
            return done

        values = [pair for pairs in ranks.spread(list(enumerate(batches)), work) for pair in pairs]
    return [
        {
            "task": text.corpus,
            "sample": passage.name,
            "cluster": passage.document,
            "type": passage.document.partition("/")[0],
            "target": "",
            "answer": "",
            "metric": METRIC,
            "score": score,
            "sub_scores": {},
            "nll": nll,
            "empty": False,
            "unparsed": None,
        }
        for passage, (nll, score) in zip(chosen, values, strict=True)
    ]


def likelihoods(model, processor, texts: Sequence[str], window: int) -> list[tuple[float, float]]:
    """For each text the mean negative log-likelihood of its first ``window`` tokens, and the share predicted right.

    Raises:
        EvaluationError: a text has fewer than two tokens.
    """
    import torch
    from torch.nn import functional

    inputs = processor(
        text=list(texts),
        padding=True,
        padding_side="right",
        truncation=True,
        max_length=window,
        return_special_tokens_mask=True,
        return_tensors="pt",
    )
    added = inputs.pop("special_tokens_mask").bool()
    inputs = inputs.to(model.device)
    ids, asked = inputs["input_ids"], (inputs["attention_mask"].bool() & ~added.to(model.device))[:, 1:]
    if not bool(asked.any(1).all()):
        raise EvaluationError(f"got a text of fewer than two tokens: {texts[int((~asked.any(1)).nonzero()[0])]!r}")
    found = []
    with torch.inference_mode():
        logits = model(**inputs, use_cache=False).logits
        for row, where in enumerate(asked):
            # A row at a time: in float32 those of a batch would take a gigabyte.
            predicted, target = logits[row, :-1][where].float(), ids[row, 1:][where]
            nll = functional.cross_entropy(predicted, target, reduction="none").double().mean()
            found.append((nll.item(), (predicted.argmax(-1) == target).double().mean().item()))
    return found


def text_record(text: TextEvaluation) -> dict[str, Any]:
    """What was evaluated on, for the run record: the text depends on Python's version."""
    return {"corpus": text.corpus, "window": text.window, "sha256": content_hash(EVALUATION)}
