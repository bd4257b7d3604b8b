"""Sets that are made of other sets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from qig.data.samples import CalibrationSample, Corpus, ImagePolicy
from qig.data.sets.base import CalibrationSet


class Combined(CalibrationSet):
    """A set whose content is that of the sets inside it, in their order."""

    def content_hash(self) -> str:
        parts = [(name, part.content_hash()) for name, part in self.inner.items()]
        return hashlib.sha256(repr(parts).encode()).hexdigest()


class Mixture(Combined):
    """The parts one after the other; ids begin with the part's name."""

    def read(self) -> Corpus:
        samples, skipped = [], {}
        for name, part in self.inner.items():
            corpus = _prefixed(part.read(), name)
            samples += corpus.samples
            skipped |= corpus.skipped
        return Corpus(tuple(samples), skipped)


class FewShot(Combined):
    """Each sample is ``shots`` neighbours of the set, every one in the whole chat template, in one sequence.

    So does MBQ's code; all answers are learned.
    """

    def read(self) -> Corpus:
        corpus, size = self.inner["of"].read(), self.config.shots
        groups, skipped = _groups(corpus, size)
        return Corpus(tuple(_joined(group) for group in groups), skipped)


class Interleaved(Combined):
    """Each sample is neighbours of the set with a plain text between each two, as in MBQ's code; texts are learned."""

    def read(self) -> Corpus:
        corpus, texts = self.inner["of"].read(), _prefixed(self.inner["text"].read(), "text")
        size = self.config.conversations
        groups, skipped = _groups(corpus, size)
        fillings, without = _groups(texts, size - 1)
        count = min(len(groups), len(fillings))
        samples = []
        for group, filling in zip(groups[:count], fillings[:count], strict=True):
            between = [sample for pair in zip(group, (*filling, None), strict=True) for sample in pair if sample]
            samples.append(_joined(between))
        left = [sample for group in (*groups[count:], *fillings[count:]) for sample in group]
        return Corpus(tuple(samples), skipped | without | dict.fromkeys((s.id for s in left), ALONE))


ALONE = "is left without a partner"


def _prefixed(corpus: Corpus, name: str) -> Corpus:
    samples = tuple(replace(sample, id=f"{name}/{sample.id}") for sample in corpus.samples)
    return Corpus(samples, {f"{name}/{key}": reason for key, reason in corpus.skipped.items()})


def _groups(corpus: Corpus, size: int) -> tuple[list[tuple[CalibrationSample, ...]], dict[str, str]]:
    """Neighbours in groups of ``size``, and what is skipped: what the set skips and what is left at the end."""
    samples = corpus.samples
    whole = len(samples) - len(samples) % size
    groups = [samples[start : start + size] for start in range(0, whole, size)]
    return groups, corpus.skipped | dict.fromkeys((sample.id for sample in samples[whole:]), ALONE)


def _joined(samples: Sequence[CalibrationSample]) -> CalibrationSample:
    segments = tuple(segment for sample in samples for segment in sample.segments)
    policy = next((s.policy for s in samples if s.images), ImagePolicy())  # one set has one
    return CalibrationSample("+".join(s.id for s in samples), segments, policy)
