"""Sensitivity: one weight per token. An estimator is one file here, one line in ``ESTIMATORS`` and one YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qig.config.schema import Sensitivity
from qig.named import named

if TYPE_CHECKING:
    from qig.sensitivity.estimator import Estimator

ESTIMATORS = {
    "uniform": "qig.sensitivity.uniform:Uniform",
    "modality_gradient": "qig.sensitivity.modality_gradient:ModalityGradient",
    "token_gradient": "qig.sensitivity.token_gradient:TokenGradient",
    "attention": "qig.sensitivity.attention:AttentionReceived",
    "perturbation": "qig.sensitivity.perturbation:Perturbation",
    "qig": "qig.sensitivity.qig:QuantizationAwareIntegratedGradients",
}


def estimator_of(config: Sensitivity) -> Estimator:
    """The estimator that the configuration names."""
    return named(config.kind, ESTIMATORS, "sensitivity")(config)
