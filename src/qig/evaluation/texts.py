"""Likelihood of running text, passage by passage: what language models are compared by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from qig.config.schema import TextEvaluation
from qig.errors import EvaluationError, NonFiniteError

from .corpora import Passage, passages_of
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
    tokenizer = processor.tokenizer
    chosen = passages_of(text, tokenizer, limit)
    batches = [chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size)]
    with tqdm(total=len(batches), desc="text", unit="batch", disable=not ranks.is_main or None) as progress:

        def of_batch(_number: int, batch: Sequence[Passage]) -> list[tuple[float, float]]:
            values = likelihoods(model, batch, tokenizer.pad_token_id)
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
            "type": passage.kind,
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


def likelihoods(model, passages: Sequence[Passage], padding: int) -> list[tuple[float, float]]:
    """For each passage the mean negative log-likelihood of its tokens, and the share predicted right.

    ``padding``: the token that fills up the shorter ones of the batch.

    Raises:
        EvaluationError: a passage has fewer than two tokens.
    """
    import torch
    from torch.nn import functional
    from torch.nn.utils.rnn import pad_sequence

    ids = pad_sequence([passage.ids for passage in passages], batch_first=True, padding_value=padding)
    attended = pad_sequence([torch.ones_like(passage.ids) for passage in passages], batch_first=True)
    added = pad_sequence([passage.added for passage in passages], batch_first=True)
    ids, attended, asked = (x.to(model.device) for x in (ids, attended, (attended.bool() & ~added)[:, 1:]))
    for passage, some in zip(passages, asked.any(1).tolist(), strict=True):
        if not some:
            raise EvaluationError(f"{passage.name}: expected a text of two tokens or more, got {len(passage.ids)}")
    found = []
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=attended, use_cache=False).logits
        for row, where in enumerate(asked):
            # A row at a time: in float32 those of a batch would take a gigabyte.
            predicted, target = logits[row, :-1][where].float(), ids[row, 1:][where]
            nll = functional.cross_entropy(predicted, target, reduction="none").double().mean()
            found.append((nll.item(), (predicted.argmax(-1) == target).double().mean().item()))
    return found
