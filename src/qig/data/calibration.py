"""Calibration samples in the model's own chat template, as padded micro-batches with a mask for every kind of token."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from qig.config.schema import Calibration
from qig.data.digitgrid.benchmark import calibration_samples
from qig.data.samples import CalibrationSample
from qig.data.tokens import TokenKind, classify
from qig.errors import ConfigError, DataError, choices

IGNORE = -100


@dataclass(frozen=True)
class CalibrationBatch:
    """Samples that pass through the model together, right-padded.

    Attributes:
        ids: sample ids, one a row.
        order: position of each row in the calibration set.
        inputs: what the processor made, ready for ``model.forward``.
        kinds: ``[batch, tokens]`` of ``TokenKind``.
        labels: ``[batch, tokens]``, the answer and the end-of-turn token that follows it; -100 elsewhere.
    """

    ids: tuple[str, ...]
    order: tuple[int, ...]
    inputs: dict[str, Tensor]
    kinds: Tensor
    labels: Tensor

    @property
    def real(self) -> Tensor:
        """Boolean ``[batch, tokens]``: not padding."""
        return self.kinds != TokenKind.PADDING


SETS = {"digitgrid": lambda config: calibration_samples(config.samples, config.seed)}


def samples_of(config: Calibration) -> list[CalibrationSample]:
    """The samples that the configuration names.

    Raises:
        ConfigError: unknown kind of set.
        DataError: the set is empty.
    """
    if config.kind not in SETS:
        raise ConfigError(choices(config.kind, SETS, "calibration set"))
    samples = SETS[config.kind](config)
    if not samples:
        raise DataError(f"calibration set {config.kind!r} has no samples (calibration.samples={config.samples})")
    return samples


def collate(
    samples: Sequence[CalibrationSample],
    processor: ProcessorMixin,
    model: PreTrainedModel,
    image_token_ids: set[int],
    tokens_per_batch: int,
) -> list[CalibrationBatch]:
    """Micro-batches of similar lengths, each of at most ``tokens_per_batch`` tokens, padding included.

    A sample longer than the budget gets a micro-batch of its own. Sorting is stable, so that the batches depend on
    nothing but the samples and the budget.

    Raises:
        DataError: an image that cannot be read, or a chat template in which the prompt is no prefix of the dialogue.
    """
    rendered = [_render(sample, processor, image_token_ids) for sample in samples]
    by_length = sorted(range(len(samples)), key=lambda i: len(rendered[i][0]))
    batches, rows = [], []
    for i in by_length:
        if rows and (len(rows) + 1) * len(rendered[i][0]) > tokens_per_batch:
            batches.append(rows)
            rows = []
        rows.append(i)
    batches.append(rows)
    return [_batch(rows, samples, rendered, processor, model) for rows in batches]


def digest(batches: Sequence[CalibrationBatch]) -> str:
    """SHA-256 over everything the model will see, for the run record."""
    result = hashlib.sha256()
    for batch in batches:
        for name in sorted(batch.inputs):
            value = batch.inputs[name].contiguous()
            result.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            result.update(value.view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return result.hexdigest()


def _messages(sample: CalibrationSample, with_answer: bool) -> list[dict]:
    images = [{"type": "image", "image": image} for image in sample.images]
    turns = [{"role": "user", "content": [*images, {"type": "text", "text": sample.prompt}]}]
    if with_answer:
        turns.append({"role": "assistant", "content": [{"type": "text", "text": sample.answer}]})
    return turns


def _template(conversations: list, processor: ProcessorMixin, prompt_only: bool) -> dict[str, Tensor]:
    return processor.apply_chat_template(
        conversations,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=prompt_only,
        processor_kwargs={"padding": True, "padding_side": "right"},
    )


def _render(
    sample: CalibrationSample, processor: ProcessorMixin, image_token_ids: set[int]
) -> tuple[list[int], int, list[TokenKind]]:
    """Token ids of the whole dialogue, where the answer begins, and the kind of each token."""
    try:
        prompt, whole = (
            _template([_messages(sample, answered)], processor, not answered)["input_ids"][0].tolist()
            for answered in (False, True)
        )
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"calibration sample {sample.id} cannot be processed: {error}") from error
    if whole[: len(prompt)] != prompt:
        raise DataError(f"calibration sample {sample.id}: the chat template's prompt is no prefix of the dialogue")
    kinds = classify(whole, len(prompt), image_token_ids, processor.tokenizer, sample.prompt, sample.answer)
    if TokenKind.ANSWER not in kinds:
        raise DataError(f"calibration sample {sample.id} has no answer token (answer {sample.answer!r})")
    return whole, len(prompt), kinds


def _batch(rows: list[int], samples, rendered, processor: ProcessorMixin, model: PreTrainedModel) -> CalibrationBatch:
    inputs = _template([_messages(samples[i], True) for i in rows], processor, False)
    ids = inputs["input_ids"]
    kinds = torch.full(ids.shape, int(TokenKind.PADDING), dtype=torch.uint8)
    labels = torch.full(ids.shape, IGNORE)
    for row, i in enumerate(rows):
        tokens, start, kind = rendered[i]
        kinds[row, : len(tokens)] = torch.tensor([int(k) for k in kind], dtype=torch.uint8)
        last = max(j for j, k in enumerate(kind) if k == TokenKind.ANSWER)
        stop = min(last + 2, len(tokens))  # the end-of-turn token that follows the answer is learned with it
        labels[row, start:stop] = ids[row, start:stop]
    floating = {k: v.to(model.dtype) if v.is_floating_point() else v for k, v in inputs.items()}
    return CalibrationBatch(tuple(samples[i].id for i in rows), tuple(rows), floating, kinds, labels)
