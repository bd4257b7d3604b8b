"""Calibration data for one model: samples in its chat template, as padded micro-batches with a kind for every token."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from qig.config.schema import Calibration
from qig.data.encoding import Encoded, begins_itself, encode, images_of, process
from qig.data.images import decode
from qig.data.samples import CalibrationSample
from qig.data.sets import read
from qig.data.tokens import TokenKind
from qig.errors import DataError
from qig.finite import is_finite, refuse_non_finite
from qig.models.classes import Processor

log = logging.getLogger(__name__)
IGNORE = -100
T = TypeVar("T")
NAMED = 5  # skipped samples that the log names; the record names all


@dataclass(frozen=True)
class CalibrationBatch:
    """Samples that pass through the model together, right-padded.

    Attributes:
        ids: sample ids, one a row.
        order: position of each row in the calibration set.
        inputs: what the processor made, ready for ``model.forward``.
        kinds: ``[batch, tokens]`` of ``TokenKind``.
        labels: ``[batch, tokens]``, the answers and the end-of-turn token after each; -100 elsewhere.
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


@dataclass(frozen=True)
class CalibrationData:
    """Micro-batches, and the samples that were chosen but cannot be used: id to reason."""

    batches: list[CalibrationBatch]
    skipped: dict[str, str]

    def record(self) -> dict:
        """What the run record says of it: sample ids in order, what was skipped and why, and the digest."""
        named = sorted(pair for batch in self.batches for pair in zip(batch.order, batch.ids, strict=True))
        return {"samples": [name for _, name in named], "skipped": self.skipped, "sha256": digest(self.batches)}


def calibration_data(
    config: Calibration, processor: Processor, model: PreTrainedModel, image_token_ids: set[int]
) -> CalibrationData:
    """The set that the configuration names, for one model; samples that cannot be used are skipped and named.

    Raises:
        DataError: the set is absent or empty, or more than ``max_skipped_share`` of its samples cannot be used.
    """
    encoded, skipped = _usable(config, lambda sample: encode(sample, processor, image_token_ids))
    return CalibrationData(_micro_batches(encoded, processor, model, config.tokens_per_batch), skipped)


def samples_of(config: Calibration) -> list[CalibrationSample]:
    """The samples that the configuration names, as far as can be told without a model.

    Raises:
        ConfigError: unknown kind of set.
        DataError: the set is absent or empty, or too many of its samples cannot be used.
    """
    return _usable(config, lambda sample: sample)[0]


def decodable(config: Calibration) -> list[CalibrationSample]:
    """Those of :func:`samples_of` whose images can be decoded; what is skipped is told where the set is used.

    Raises:
        DataError: as :func:`samples_of`.
    """

    def decoded(sample: CalibrationSample) -> CalibrationSample:
        for picture in sample.images:
            decode(picture)
        return sample

    return _usable(config, decoded, logging.DEBUG)[0]


def collate(
    samples: Sequence[CalibrationSample],
    processor: Processor,
    model: PreTrainedModel,
    image_token_ids: set[int],
    tokens_per_batch: int,
) -> list[CalibrationBatch]:
    """Micro-batches of similar lengths, each of at most ``tokens_per_batch`` tokens, padding included.

    A sample longer than the budget gets a micro-batch of its own; samples with images and without never share one.
    Sorting is stable, so that the batches depend on nothing but the samples and the budget.

    Raises:
        DataError: a sample that cannot be used; names it.
    """
    encoded = [encode(sample, processor, image_token_ids) for sample in samples]
    return _micro_batches(encoded, processor, model, tokens_per_batch)


def digest(batches: Sequence[CalibrationBatch]) -> str:
    """SHA-256 over everything the model will see, for the run record."""
    result = hashlib.sha256()
    for batch in batches:
        for name in sorted(batch.inputs):
            value = batch.inputs[name].contiguous()
            result.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            result.update(value.view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return result.hexdigest()


def _usable(
    config: Calibration, look: Callable[[CalibrationSample], T], level: int = logging.WARNING
) -> tuple[list[T], dict[str, str]]:
    """What ``look`` makes of each sample of the set, and why those are skipped that it raises DataError for.

    One line of the log says what is skipped; it is an error if that is too much, or nothing is left.
    """
    corpus = read(config)
    usable, reasons = [], dict(corpus.skipped)
    for sample in corpus.samples:
        try:
            usable.append(look(sample))
        except DataError as error:
            reasons[sample.id] = str(error)
    used, skipped = len(usable), len(reasons)
    if skipped:
        said = "; ".join(f"{name} ({reason})" for name, reason in itertools.islice(reasons.items(), NAMED))
        more = f"; and {skipped - NAMED} more" if skipped > NAMED else ""
        text = f"{skipped} of {used + skipped} samples of calibration set {config.kind!r} cannot be used: {said}{more}"
        if skipped > config.max_skipped_share * (used + skipped):
            raise DataError(f"{text}; at most calibration.max_skipped_share={config.max_skipped_share} may be skipped")
        log.log(level, "%s", text)
    if not used:
        raise DataError(f"calibration set {config.kind!r} has no samples (calibration.samples={config.samples})")
    return usable, reasons


def _micro_batches(
    encoded: Sequence[Encoded], processor: Processor, model: PreTrainedModel, tokens_per_batch: int
) -> list[CalibrationBatch]:
    def alike(i: int) -> tuple[bool, bool]:  # what one processor call must have in common
        return bool(encoded[i].sample.images), begins_itself(encoded[i].text, processor)

    batches: list[list[int]] = []
    for i in sorted(range(len(encoded)), key=lambda i: (alike(i), len(encoded[i].ids))):
        rows = batches[-1] if batches else []
        fits = rows and alike(rows[0]) == alike(i) and (len(rows) + 1) * len(encoded[i].ids) <= tokens_per_batch
        if fits:
            rows.append(i)
        else:
            batches.append([i])
    return [_batch(rows, encoded, processor, model) for rows in batches]


def _batch(rows: list[int], all_encoded: Sequence[Encoded], processor: Processor, model) -> CalibrationBatch:
    encoded = [all_encoded[i] for i in rows]
    names = tuple(e.sample.id for e in encoded)
    images = [images_of(e.sample, processor) for e in encoded]
    padded = {"padding": True, "padding_side": "right", "return_tensors": "pt"}
    inputs = process(names, [e.text for e in encoded], images, processor, **padded)
    ids = inputs["input_ids"]
    kinds = torch.full(ids.shape, int(TokenKind.PADDING), dtype=torch.uint8)
    labels = torch.full(ids.shape, IGNORE)
    for row, e in enumerate(encoded):
        if ids[row, : len(e.ids)].tolist() != e.ids:
            raise DataError(f"calibration sample {e.sample.id}: its tokens change with what else is in its micro-batch")
        kinds[row, : len(e.ids)] = torch.from_numpy(e.kinds)
        learned = torch.from_numpy(e.learned).nonzero().flatten()
        labels[row, learned] = ids[row, learned]
    floating = {k: v.to(model.dtype) if v.is_floating_point() else v for k, v in inputs.items()}
    if not all(is_finite(value) for value in floating.values()):
        for name, e, pictures in zip(names, encoded, images, strict=True):  # pixels do not say whose they are
            _refuse_non_finite(name, process((name,), [e.text], [pictures], processor, **padded), model.dtype)
    return CalibrationBatch(names, tuple(rows), floating, kinds, labels)


def _refuse_non_finite(sample: str, inputs: dict[str, Tensor], dtype: torch.dtype) -> None:
    for name, value in inputs.items():
        if value.is_floating_point():
            refuse_non_finite(name, value.to(dtype).reshape(1, -1), [sample])
