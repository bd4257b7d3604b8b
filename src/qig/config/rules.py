"""What the schema cannot say: rules across fields. A message names the key, what came, and what was expected."""

from __future__ import annotations

import re
from dataclasses import asdict

from qig.config.bounds import at_least, check_finite, within
from qig.config.calibration_rules import check_calibration
from qig.config.schema import (
    GROUPS,
    ClippedRounding,
    Config,
    Equalization,
    Evaluation,
    GptaqRounding,
    GptqRounding,
    GridEqualization,
    LearnedEqualization,
    ModalityGradientSensitivity,
    NoEqualization,
    PerturbationSensitivity,
    QigSensitivity,
    SmoothQuantEqualization,
)
from qig.config.schema.evaluation import BUILT_IN
from qig.errors import ConfigError, choices

SMALLEST_GROUP = 8
"""With zero points: all weights of a smaller one often have one sign; without 0 a range has no integer zero point."""
SITES = ("attn_in", "attn_out", "mlp_in", "mlp_out")


def check_text_only(config: Config, because: str) -> None:
    """Rules for where there are no vision tokens to weigh against the others. ``because``: why there are none.

    Raises:
        ConfigError: the sensitivity distinguishes modalities: every token would get the same weight under the name of a
            method that weighs them.
    """
    sensitivity = config.sensitivity
    for key, value, by_modality in (
        ("kind", sensitivity.kind, isinstance(sensitivity, ModalityGradientSensitivity)),
        ("granularity", sensitivity.granularity, sensitivity.granularity == "modality"),
        ("control", sensitivity.control, sensitivity.control == "modality_mean"),
    ):
        if by_modality:
            raise ConfigError(
                f"sensitivity.{key}={value} weighs vision tokens against text tokens, and {because}: all tokens would "
                "weigh the same; choose sensitivity=uniform for that, or weights by token (sensitivity=qig, "
                "token_gradient, attention, perturbation)"
            )


def check(config: Config) -> None:
    """Raises ConfigError for the first rule that is broken."""
    check_finite("", asdict(config))
    _check_kinds(config)
    for name, value in (("seed", config.seed), ("evaluation.seed", config.evaluation.seed)):
        within(name, value, 0, 2**32 - 1)  # NumPy's seeds
    within("model.outliers.seed", config.model.outliers.seed, 0, 2**63 - 1)
    _check_quant(config)
    _check_sensitivity(config)
    _check_equalization(config.equalization)
    _check_rounding(config)
    check_calibration("calibration", config.calibration)
    at_least("evaluation.batch_size", config.evaluation.batch_size, 1)
    at_least("evaluation.processes", config.evaluation.processes, 1)
    if config.evaluation.sharded and config.evaluation.processes > 1:
        raise ConfigError(
            f"evaluation.sharded=true spreads one model over all accelerators, and evaluation.processes="
            f"{config.evaluation.processes} asks for several models: choose one of them"
        )
    if config.evaluation.limit is not None:
        at_least("evaluation.limit", config.evaluation.limit, 1)
    for name in ("max_empty_share", "max_unparsed_share"):
        share = getattr(config.evaluation, name)
        if not 0 <= share <= 1:
            raise ConfigError(f"evaluation.{name}={share}: expected a share of the answers, 0 to 1")
    _check_text(config.evaluation)
    if not config.store.strip():
        raise ConfigError("store is empty (a variable that is not set?): expected a folder")
    if config.threads is not None:
        at_least("threads", config.threads, 1)
    if not 0 <= config.model.outliers.sigma <= 10:  # beyond, a scale leaves float32's range
        raise ConfigError(f"model.outliers.sigma={config.model.outliers.sigma}: expected 0 (none) to 10")


def _check_text(evaluation: Evaluation) -> None:
    text = evaluation.text
    at_least("evaluation.text.window", text.window, 2)
    if text.corpus is None and not evaluation.tasks:
        raise ConfigError(
            "evaluation.tasks is empty: expected at least one task name, such as qig_digitgrid, or text to evaluate on "
            "(evaluation=python_docs)"
        )
    if text.corpus is None and text.path is not None:
        raise ConfigError(f"evaluation.text.path={text.path}: expected a name for it in tables, evaluation.text.corpus")
    if text.corpus == BUILT_IN and text.path is not None:
        raise ConfigError(f"evaluation.text.path={text.path}: {BUILT_IN} comes with Python; expected another corpus")
    if text.corpus not in (None, BUILT_IN) and text.path is None:
        raise ConfigError(
            f"evaluation.text.path is null: expected a file, a directory or a hub id for evaluation.text.corpus="
            f"{text.corpus} ({BUILT_IN} alone comes with Python)"
        )
    if text.corpus in evaluation.tasks:
        raise ConfigError(f"evaluation.text.corpus={text.corpus}: a task of evaluation.tasks is called so, too")


def _check_kinds(config: Config) -> None:
    """A ``kind`` set by itself would run one method with another one's options and under its name."""
    for group in ("sensitivity", "equalization", "rounding", "calibration"):
        chosen, kinds = getattr(config, group), GROUPS[group]
        if chosen.kind not in kinds:
            raise ConfigError(choices(chosen.kind, kinds, f"{group}.kind"))
        if type(chosen) is not kinds[chosen.kind]:
            key = f"{group}.kind={chosen.kind}"
            raise ConfigError(f"{key} alone leaves another choice's options: {group}={chosen.kind} is that choice")


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
    within("quant.weights.bits", quant.weights.bits, 2, 8)
    if quant.weights.group_size is not None:
        at_least("quant.weights.group_size", quant.weights.group_size, 1 if quant.weights.symmetric else SMALLEST_GROUP)
    if quant.activations is not None:
        within("quant.activations.bits", quant.activations.bits, 2, 8)
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
        at_least("sensitivity.nodes", sensitivity.nodes, 1)
        at_least("sensitivity.max_nodes", sensitivity.max_nodes, sensitivity.nodes)
        at_least("sensitivity.warmup_sites", sensitivity.warmup_sites, 0)
        if sensitivity.factor <= 0:
            raise ConfigError(f"sensitivity.factor={sensitivity.factor}: expected a positive factor")
        if sensitivity.tolerance <= 0:
            raise ConfigError(
                f"sensitivity.tolerance={sensitivity.tolerance}: expected a positive completeness residual"
            )
        if sensitivity.clip_factor < 0:
            raise ConfigError(f"sensitivity.clip_factor={sensitivity.clip_factor}: expected 0 or more times the IQR")
    if isinstance(sensitivity, PerturbationSensitivity):
        at_least("sensitivity.rows_per_batch", sensitivity.rows_per_batch, 1)


def _check_equalization(equalization: Equalization) -> None:
    for site in equalization.sites:
        if site not in SITES:
            raise ConfigError(choices(site, SITES, "equalization site"))
    if len(set(equalization.sites)) < len(equalization.sites):
        raise ConfigError(f"equalization.sites={equalization.sites}: a site is given more than once")
    if not isinstance(equalization, NoEqualization) and not equalization.sites:
        raise ConfigError(
            f"equalization.sites is empty: nothing would be scaled; expected some of {', '.join(SITES)}, or "
            "equalization=none"
        )
    if isinstance(equalization, SmoothQuantEqualization) and not 0 <= equalization.alpha <= 1:
        raise ConfigError(f"equalization.alpha={equalization.alpha}: expected 0 (weights alone) to 1 (inputs alone)")
    if isinstance(equalization, GridEqualization):
        at_least("equalization.points", equalization.points, 1)
        if equalization.step <= 0:
            raise ConfigError(f"equalization.step={equalization.step}: expected a positive step of the exponent")
    if isinstance(equalization, LearnedEqualization):
        at_least("equalization.steps", equalization.steps, 1)
        if equalization.rate <= 0:
            raise ConfigError(f"equalization.rate={equalization.rate}: expected a positive learning rate")


def _check_rounding(config: Config) -> None:
    rounding = config.rounding
    if isinstance(rounding, ClippedRounding):
        at_least("rounding.points", rounding.points, 1)
        if not 0 <= rounding.max_shrink < 1:
            raise ConfigError(f"rounding.max_shrink={rounding.max_shrink}: expected a share of the range, 0 to below 1")
    if isinstance(rounding, GptaqRounding):
        if rounding.stream != "quantized":
            raise ConfigError("rounding=gptaq is about the quantized stream's inputs: rounding.stream=quantized")
        if not 0 <= rounding.asymmetry <= 1:
            raise ConfigError(f"rounding.asymmetry={rounding.asymmetry}: expected 0 (GPTQ) to 1 (the paper's formula)")
    if isinstance(rounding, GptqRounding):
        at_least("rounding.block", rounding.block, 1)
        if rounding.damping < 0:
            raise ConfigError(f"rounding.damping={rounding.damping}: expected 0 or more times the mean diagonal")
        grouped = config.quant.weights is not None and config.quant.weights.group_size is not None
        if rounding.order_by_activation and grouped and not rounding.static_groups:
            raise ConfigError(
                "rounding.order_by_activation=true with groups cannot be packed unless their scales are fixed "
                "beforehand: rounding.static_groups=true, or one scale a row (quant.weights.group_size=null)"
            )
