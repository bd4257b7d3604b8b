"""Calibration sets that are made of other sets: what the whole says of its parts."""

from __future__ import annotations

from dataclasses import replace

from qig.config.schema import Calibration, FewShotCalibration, InterleavedCalibration, MixtureCalibration


def inner_sets(config: Calibration) -> dict[str, Calibration]:
    """The sets inside, by name, each with the number of samples that the whole needs of it; none in a plain set.

    Seed, token budget and the bound on skipped samples are those of the whole.
    """
    if isinstance(config, MixtureCalibration):
        counts = split_by_share(config.samples, config.shares)
        return {name: _within(config, part, counts[name]) for name, part in config.parts.items()}
    if isinstance(config, FewShotCalibration):
        return {"of": _within(config, config.of, config.samples * config.shots)}
    if isinstance(config, InterleavedCalibration):
        return {
            "of": _within(config, config.of, config.samples * config.conversations),
            "text": _within(config, config.text, config.samples * (config.conversations - 1)),
        }
    return {}


def with_inner_sets(config: Calibration) -> Calibration:
    """A copy in which every set inside says what it will be used with."""
    inner = {name: with_inner_sets(part) for name, part in inner_sets(config).items()}
    if isinstance(config, MixtureCalibration):
        return replace(config, parts=inner)
    return replace(config, **inner)


def split_by_share(total: int, shares: dict[str, float]) -> dict[str, int]:
    """``total`` in whole numbers that follow the shares (of their sum) as nearly as can be; ties go to the first."""
    whole = sum(shares.values())
    exact = {name: total * share / whole for name, share in shares.items()}
    counts = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def _within(whole: Calibration, part: Calibration, samples: int) -> Calibration:
    return replace(
        part,
        samples=samples,
        seed=whole.seed,
        tokens_per_batch=whole.tokens_per_batch,
        max_skipped_share=whole.max_skipped_share,
    )
