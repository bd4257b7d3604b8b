"""From a composed configuration to one that can run: checked, with all that follows from other values decided.

Nothing here loads anything, so that a configuration that cannot run is refused within a second.
"""

from __future__ import annotations

from copy import deepcopy

from qig.config.nested import with_inner_sets
from qig.config.rules import check
from qig.config.schema import (
    Config,
    GridEqualization,
    ModalityGradientSensitivity,
    NearestRounding,
    NoEqualization,
    Quant,
    Rounding,
    UniformSensitivity,
)
from qig.config.threads import available_threads


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
        # Without a search the weights enter second moments, which belong to a squared error.
        squared = not isinstance(equalization, GridEqualization) or equalization.loss == "mse"
        sensitivity.balance = "per_modality" if squared else "per_token"
    return config


def baseline(config: Config, method: str) -> Config:
    """The resolved run that ``config`` is compared with: the same model, data and benchmark in 16 bits, or RTN."""
    config = deepcopy(config)
    if method == "none":
        config.quant = Quant("fp16", None, None, config.quant.linears)
        return neutral(config, "none", NearestRounding("none"))
    return neutral(config, "rtn", NearestRounding("nearest"))


def neutral(config: Config, method: str, rounding: Rounding) -> Config:
    config.method = method
    config.sensitivity = UniformSensitivity("uniform", "token_special", "corpus", "none", 0)
    config.equalization = NoEqualization("none", [], False)
    config.rounding = rounding
    return config


def needs_calibration(config: Config) -> bool:
    """Whether the method looks at data at all; 16 bit and RTN do not."""
    return config.equalization.kind != "none" or rounds_by_inputs(config)


def reads_weights(config: Config) -> bool:
    """Whether anything reads token weights; SmoothQuant and rounding to the nearest do not."""
    return config.equalization.kind in ("grid", "learned") or rounds_by_inputs(config)


def rounds_by_inputs(config: Config) -> bool:
    """Whether the rounding looks at inputs: at squared errors under token weights."""
    return config.rounding.kind not in ("none", "nearest")


def needs_gradients(config: Config) -> bool:
    """Whether token weights come from gradients of the whole model's loss, and something reads those weights."""
    return config.sensitivity.kind in ("modality_gradient", "token_gradient") and reads_weights(config)
