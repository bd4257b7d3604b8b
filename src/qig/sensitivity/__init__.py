"""Sensitivity: one weight per token. An estimator is one file here, one line in ``ESTIMATORS`` and one YAML."""

from __future__ import annotations

from qig.config.schema import Sensitivity
from qig.errors import ConfigError, choices
from qig.sensitivity.attention import AttentionReceived
from qig.sensitivity.estimator import Estimator
from qig.sensitivity.modality_gradient import ModalityGradient
from qig.sensitivity.perturbation import Perturbation
from qig.sensitivity.qig import QuantizationAwareIntegratedGradients
from qig.sensitivity.token_gradient import TokenGradient
from qig.sensitivity.uniform import Uniform

ESTIMATORS: dict[str, type[Estimator]] = {
    "uniform": Uniform,
    "modality_gradient": ModalityGradient,
    "token_gradient": TokenGradient,
    "attention": AttentionReceived,
    "perturbation": Perturbation,
    "qig": QuantizationAwareIntegratedGradients,
}


def estimator(config: Sensitivity) -> Estimator:
    """The estimator that the configuration names."""
    if config.kind not in ESTIMATORS:
        raise ConfigError(choices(config.kind, ESTIMATORS, "sensitivity"))
    return ESTIMATORS[config.kind](config)
