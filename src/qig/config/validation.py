"""What the schema cannot say: rules across fields, and values that follow from others.

Nothing here loads anything, so that a configuration that cannot run is refused within a second.
"""

from __future__ import annotations

import math
import re
from copy import deepcopy
from dataclasses import asdict
from typing import Any

from qig.config.nested import inner_sets, with_inner_sets
from qig.config.schema import (
    Calibration,
    ClippedRounding,
    Config,
    Equalization,
    FewShotCalibration,
    GptqRounding,
    GridEqualization,
    HfCalibration,
    InterleavedCalibration,
    LearnedEqualization,
    MixtureCalibration,
    ModalityGradientSensitivity,
    NoEqualization,
    PerturbationSensitivity,
    PileCalibration,
    PythonDocsCalibration,
    QigSensitivity,
    Quant,
    Rounding,
    SmoothQuantEqualization,
    UniformSensitivity,
)
from qig.config.threads import available_threads
from qig.errors import ConfigError, choices

SITES = ("attn_in", "attn_out", "mlp_in", "mlp_out")


def resolve(config: Config) -> Config:
    """A copy in which every ``auto`` and the threads are decided, and what has no effect has its neutral value.

    Raises:
        ConfigError: the configuration cannot be run; says what came, what was expected, and the choices.
    """
    config = deepcopy(config)
    check(config)
    config.calibration = with_inner_sets(config.calibration)
    if config.threads is None:
        config.threads = available_threads()
    if config.quant.weights is None:  # 16 bit: the method has nothing to do
        return baseline(config, "none")
    sensitivity, equalization = config.sensitivity, config.equalization
    if isinstance(sensitivity, ModalityGradientSensitivity) and sensitivity.balance == "auto":
        squared = isinstance(equalization, GridEqualization) and equalization.loss == "mse"
        sensitivity.balance = "per_modality" if squared else "per_token"
    return config


def baseline(config: Config, method: str) -> Config:
    """The resolved run that ``config`` is compared with: the same model, data and benchmark in 16 bits, or RTN."""
    config = deepcopy(config)
    if method == "none":
        config.quant = Quant("fp16", None, None, config.quant.linears)
        return neutral(config, "none", Rounding("none"))
    return neutral(config, "rtn", Rounding("nearest"))


def neutral(config: Config, method: str, rounding: Rounding) -> Config:
    config.method = method
    config.sensitivity = UniformSensitivity("uniform", "token_special", "corpus", "none", 0)
    config.equalization = NoEqualization("none", [], False)
    config.rounding = rounding
    return config


def needs_calibration(config: Config) -> bool:
    """Whether the method looks at data at all; 16 bit and RTN do not."""
    return config.equalization.kind != "none" or config.rounding.kind not in ("none", "nearest")


def needs_gradients(config: Config) -> bool:
    """Whether token weights come from gradients of the whole model's loss, and something reads those weights."""
    read = config.equalization.kind in ("grid", "learned") or config.rounding.kind not in ("none", "nearest")
    return config.sensitivity.kind in ("modality_gradient", "token_gradient") and read


def check_text_only(config: Config) -> None:
    """Rules for a language model, which has no vision tokens that could be weighed against the others.

    Raises:
        ConfigError: the sensitivity distinguishes modalities: every token would get the same weight under the name of a
            method that weighs them.
    """
    if not needs_calibration(config):
        return
    sensitivity = config.sensitivity
    for key, value, by_modality in (
        ("kind", sensitivity.kind, isinstance(sensitivity, ModalityGradientSensitivity)),
        ("granularity", sensitivity.granularity, sensitivity.granularity == "modality"),
        ("control", sensitivity.control, sensitivity.control == "modality_mean"),
    ):
        if by_modality:
            raise ConfigError(
                f"sensitivity.{key}={value} weighs vision tokens against text tokens, and {config.model.name} is a "
                "language model without vision tokens: all of its tokens would weigh the same; choose "
                "sensitivity=uniform for that, or weights by token (sensitivity=qig, token_gradient, attention, "
                "perturbation)"
            )


def check(config: Config) -> None:
    """Raises ConfigError for the first rule that is broken."""
    _check_finite("", asdict(config))
    for name, value in (("seed", config.seed), ("evaluation.seed", config.evaluation.seed)):
        _within(name, value, 0, 2**32 - 1)  # NumPy's seeds
    _within("model.outliers.seed", config.model.outliers.seed, 0, 2**63 - 1)
    _check_quant(config)
    _check_sensitivity(config)
    _check_equalization(config.equalization)
    _check_rounding(config)
    _check_calibration("calibration", config.calibration)
    _at_least("evaluation.batch_size", config.evaluation.batch_size, 1)
    _at_least("evaluation.processes", config.evaluation.processes, 1)
    if config.evaluation.limit is not None:
        _at_least("evaluation.limit", config.evaluation.limit, 1)
    for name in ("max_empty_share", "max_unparsed_share"):
        share = getattr(config.evaluation, name)
        if not 0 <= share <= 1:
            raise ConfigError(f"evaluation.{name}={share}: expected a share of the answers, 0 to 1")
    if config.evaluation.text is not None:
        _at_least("evaluation.text.window", config.evaluation.text.window, 2)
    elif not config.evaluation.tasks:
        raise ConfigError(
            "evaluation.tasks is empty: expected at least one task name, such as qig_digitgrid, or text to evaluate on "
            "(evaluation=python_docs)"
        )
    if config.threads is not None:
        _at_least("threads", config.threads, 1)
    if not 0 <= config.model.outliers.sigma <= 10:  # beyond, a scale leaves float32's range
        raise ConfigError(f"model.outliers.sigma={config.model.outliers.sigma}: expected 0 (none) to 10")


def _check_quant(config: Config) -> None:
    quant, rounding = config.quant, config.rounding.kind
    try:
        re.compile(f"({quant.linears})")  # it is used as a part of longer expressions
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"quant.linears={quant.linears!r} is not a regular expression: {error}") from error
    if quant.weights is None:
        if quant.activations is not None:
            raise ConfigError(f"quant={quant.name}: activations without weights in integers; set quant.weights too")
        return
    if rounding == "none":
        raise ConfigError(
            f"rounding=none keeps weights in 16 bits, but quant={quant.name} asks for "
            f"{quant.weights.bits}-bit weights; choose rounding=nearest, or quant=fp16"
        )
    _within("quant.weights.bits", quant.weights.bits, 2, 8)
    if quant.weights.group_size is not None:
        _at_least("quant.weights.group_size", quant.weights.group_size, 1)
    if quant.activations is not None:
        _within("quant.activations.bits", quant.activations.bits, 2, 8)
        if not quant.weights.symmetric or quant.weights.group_size is not None:
            raise ConfigError(
                f"quant={quant.name}: integer activations need symmetric weights with one scale a row "
                "(quant.weights.symmetric=true quant.weights.group_size=null)"
            )


def _check_sensitivity(config: Config) -> None:
    sensitivity = config.sensitivity
    if isinstance(sensitivity, ModalityGradientSensitivity) and sensitivity.granularity != "modality":
        raise ConfigError("sensitivity=modality_gradient has granularity modality only; token weights: sensitivity=qig")
    if isinstance(sensitivity, QigSensitivity):
        _at_least("sensitivity.nodes", sensitivity.nodes, 1)
        _at_least("sensitivity.max_nodes", sensitivity.max_nodes, sensitivity.nodes)
        _at_least("sensitivity.warmup_sites", sensitivity.warmup_sites, 0)
        if sensitivity.factor <= 0:
            raise ConfigError(f"sensitivity.factor={sensitivity.factor}: expected a positive factor")
        if sensitivity.tolerance <= 0:
            raise ConfigError(
                f"sensitivity.tolerance={sensitivity.tolerance}: expected a positive completeness residual"
            )
        if sensitivity.clip_factor < 0:
            raise ConfigError(f"sensitivity.clip_factor={sensitivity.clip_factor}: expected 0 or more times the IQR")
    if isinstance(sensitivity, PerturbationSensitivity):
        _at_least("sensitivity.rows_per_batch", sensitivity.rows_per_batch, 1)


def _check_equalization(equalization: Equalization) -> None:
    for site in equalization.sites:
        if site not in SITES:
            raise ConfigError(choices(site, SITES, "equalization site"))
    if isinstance(equalization, SmoothQuantEqualization) and not 0 <= equalization.alpha <= 1:
        raise ConfigError(f"equalization.alpha={equalization.alpha}: expected 0 (weights alone) to 1 (inputs alone)")
    if isinstance(equalization, GridEqualization):
        _at_least("equalization.points", equalization.points, 1)
        if equalization.step <= 0:
            raise ConfigError(f"equalization.step={equalization.step}: expected a positive step of the exponent")
    if isinstance(equalization, LearnedEqualization):
        _at_least("equalization.steps", equalization.steps, 1)
        if equalization.rate <= 0:
            raise ConfigError(f"equalization.rate={equalization.rate}: expected a positive learning rate")


def _check_rounding(config: Config) -> None:
    rounding = config.rounding
    if isinstance(rounding, ClippedRounding):
        _at_least("rounding.points", rounding.points, 1)
        if not 0 <= rounding.max_shrink < 1:
            raise ConfigError(f"rounding.max_shrink={rounding.max_shrink}: expected a share of the range, 0 to below 1")
    if isinstance(rounding, GptqRounding):
        _at_least("rounding.block", rounding.block, 1)
        if rounding.damping < 0:
            raise ConfigError(f"rounding.damping={rounding.damping}: expected 0 or more times the mean diagonal")
        if rounding.kind == "gptaq" and rounding.stream != "quantized":
            raise ConfigError("rounding=gptaq is about the quantized stream's inputs: rounding.stream=quantized")
        grouped = config.quant.weights is not None and config.quant.weights.group_size is not None
        if rounding.order_by_activation and grouped and not rounding.static_groups:
            raise ConfigError(
                "rounding.order_by_activation=true with groups cannot be packed unless their scales are fixed "
                "beforehand: rounding.static_groups=true, or one scale a row (quant.weights.group_size=null)"
            )


def _check_calibration(key: str, config: Calibration) -> None:
    _at_least(f"{key}.samples", config.samples, 1)
    _at_least(f"{key}.tokens_per_batch", config.tokens_per_batch, 1)
    if config.seed < 0:
        raise ConfigError(f"{key}.seed={config.seed}: expected 0 or more")
    if not 0 <= config.max_skipped_share < 1:
        raise ConfigError(f"{key}.max_skipped_share={config.max_skipped_share}: expected a share, 0 to below 1")
    if isinstance(config, PileCalibration | PythonDocsCalibration):
        _at_least(f"{key}.max_tokens", config.max_tokens, 1)
    if isinstance(config, HfCalibration) and (config.prompt is None) == (config.prompt_column is None):
        raise ConfigError(
            f"{key}.prompt={config.prompt!r} and {key}.prompt_column={config.prompt_column!r}: "
            "expected one of them, the other null"
        )
    if isinstance(config, FewShotCalibration):
        _at_least(f"{key}.shots", config.shots, 2)
    if isinstance(config, InterleavedCalibration):
        _at_least(f"{key}.conversations", config.conversations, 2)
        if not isinstance(config.text, PileCalibration):
            raise ConfigError(f"{key}.text.kind={config.text.kind}: expected plain text, such as pile")
    if isinstance(config, MixtureCalibration):
        _check_shares(key, config)
    for name, part in inner_sets(config).items():
        where = f"{key}.parts" if isinstance(config, MixtureCalibration) else key
        _check_calibration(f"{where}.{name}", part)


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


def _check_finite(key: str, value: Any) -> None:
    """Refuse NaN and infinities anywhere: no comparison with NaN is true, so that other rules would let it through."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_finite(f"{key}.{name}" if key else str(name), inner)
    elif isinstance(value, list):
        for inner in value:
            _check_finite(key, inner)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key}={value}: expected a finite number")


def _at_least(key: str, value: int, low: int) -> None:
    if value < low:
        raise ConfigError(f"{key}={value}: expected {low} or more")


def _within(key: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{key}={value}: expected {low} to {high}")
