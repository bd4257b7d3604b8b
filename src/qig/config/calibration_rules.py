"""Rules across the fields of a calibration set, and of the sets that it is made of."""

from __future__ import annotations

from qig.config.bounds import at_least
from qig.config.nested import inner_sets
from qig.config.schema import (
    Calibration,
    FewShotCalibration,
    HfCalibration,
    ImageCalibration,
    InterleavedCalibration,
    MixtureCalibration,
    PileCalibration,
    PythonDocsCalibration,
)
from qig.errors import ConfigError


def check_calibration(key: str, config: Calibration) -> None:
    """Rules of a calibration set and of those inside it; ``key`` is where it stands. Raises ConfigError."""
    at_least(f"{key}.samples", config.samples, 1)
    at_least(f"{key}.tokens_per_batch", config.tokens_per_batch, 1)
    if config.seed < 0:
        raise ConfigError(f"{key}.seed={config.seed}: expected 0 or more")
    if not 0 <= config.max_skipped_share < 1:
        raise ConfigError(f"{key}.max_skipped_share={config.max_skipped_share}: expected a share, 0 to below 1")
    if isinstance(config, PileCalibration | PythonDocsCalibration):
        at_least(f"{key}.max_tokens", config.max_tokens, 1)
    if isinstance(config, ImageCalibration) and config.max_pixels is not None:
        at_least(f"{key}.max_pixels", config.max_pixels, 1)
    if isinstance(config, HfCalibration) and (config.prompt is None) == (config.prompt_column is None):
        raise ConfigError(
            f"{key}.prompt={config.prompt!r} and {key}.prompt_column={config.prompt_column!r}: "
            "expected one of them, the other null"
        )
    if isinstance(config, FewShotCalibration):
        at_least(f"{key}.shots", config.shots, 2)
    if isinstance(config, InterleavedCalibration):
        at_least(f"{key}.conversations", config.conversations, 2)
        if not isinstance(config.text, PileCalibration | PythonDocsCalibration):
            raise ConfigError(f"{key}.text.kind={config.text.kind}: expected plain text: pile or python_docs")
    if isinstance(config, MixtureCalibration):
        _check_shares(key, config)
    for name, part in inner_sets(config).items():
        where = f"{key}.parts" if isinstance(config, MixtureCalibration) else key
        check_calibration(f"{where}.{name}", part)


def _check_shares(key: str, config: MixtureCalibration) -> None:
    if not config.parts or config.shares.keys() != config.parts.keys():
        raise ConfigError(
            f"{key}.shares names {', '.join(config.shares) or 'nothing'}, {key}.parts {', '.join(config.parts)}: "
            "expected one share for each part"
        )
    for name, share in config.shares.items():
        if not 0 < share < float("inf"):
            raise ConfigError(f"{key}.shares.{name}={share}: expected a positive share")
    for name, part in inner_sets(config).items():
        if part.samples < 1:
            raise ConfigError(f"{key}.shares.{name} leaves no sample of {config.samples} to it: ask for more samples")
