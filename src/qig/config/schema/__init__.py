"""The schema of every configuration group. Values live in ``conf/``; unknown keys and wrong types are refused.

A field without a default must be given by a YAML file, so that each default stands in one place.
Cross-field rules (a group size that must divide, settings that exclude each other) are in ``rules``.
"""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from qig.config.schema.calibration import (
    Calibration,
    DigitGridCalibration,
    FewShotCalibration,
    HfCalibration,
    ImageCalibration,
    InterleavedCalibration,
    MixtureCalibration,
    PileCalibration,
    PythonDocsCalibration,
    ShareGptCalibration,
)
from qig.config.schema.equalization import (
    Equalization,
    GridEqualization,
    LearnedEqualization,
    NoEqualization,
    SmoothQuantEqualization,
)
from qig.config.schema.evaluation import Evaluation, TextEvaluation
from qig.config.schema.model import Model, Outliers
from qig.config.schema.quant import ActivationSetting, Quant, WeightSetting
from qig.config.schema.rounding import ClippedRounding, GptaqRounding, GptqRounding, NearestRounding, Rounding
from qig.config.schema.run import Memory, Tracking
from qig.config.schema.sensitivity import (
    AttentionSensitivity,
    ModalityGradientSensitivity,
    PerturbationSensitivity,
    QigSensitivity,
    Sensitivity,
    TokenGradientSensitivity,
    UniformSensitivity,
)

__all__ = [
    "GROUPS",
    "ActivationSetting",
    "AttentionSensitivity",
    "Calibration",
    "ClippedRounding",
    "Config",
    "DigitGridCalibration",
    "Equalization",
    "Evaluation",
    "FewShotCalibration",
    "GptaqRounding",
    "GptqRounding",
    "GridEqualization",
    "HfCalibration",
    "ImageCalibration",
    "InterleavedCalibration",
    "LearnedEqualization",
    "Memory",
    "MixtureCalibration",
    "ModalityGradientSensitivity",
    "Model",
    "NearestRounding",
    "NoEqualization",
    "Outliers",
    "PerturbationSensitivity",
    "PileCalibration",
    "PythonDocsCalibration",
    "QigSensitivity",
    "Quant",
    "Rounding",
    "Sensitivity",
    "ShareGptCalibration",
    "SmoothQuantEqualization",
    "TextEvaluation",
    "TokenGradientSensitivity",
    "Tracking",
    "UniformSensitivity",
    "WeightSetting",
]


@dataclass
class Config:
    method: str = MISSING
    model: Model = MISSING
    quant: Quant = MISSING
    sensitivity: Sensitivity = MISSING
    equalization: Equalization = MISSING
    rounding: Rounding = MISSING
    calibration: Calibration = MISSING
    evaluation: Evaluation = MISSING
    tracking: Tracking = MISSING
    memory: Memory = MISSING
    plan: bool = MISSING
    seed: int = MISSING
    device: str = MISSING
    threads: int | None = MISSING
    store: str = MISSING


GROUPS: dict[str, dict[str, type]] = {
    "model": {"model": Model},
    "quant": {"quant": Quant},
    "sensitivity": {
        "uniform": UniformSensitivity,
        "modality_gradient": ModalityGradientSensitivity,
        "token_gradient": TokenGradientSensitivity,
        "attention": AttentionSensitivity,
        "perturbation": PerturbationSensitivity,
        "qig": QigSensitivity,
    },
    "equalization": {
        "none": NoEqualization,
        "smoothquant": SmoothQuantEqualization,
        "grid": GridEqualization,
        "learned": LearnedEqualization,
    },
    "rounding": {
        "none": NearestRounding,
        "nearest": NearestRounding,
        "clipped": ClippedRounding,
        "gptq": GptqRounding,
        "gptaq": GptaqRounding,
    },
    "calibration": {
        "digitgrid": DigitGridCalibration,
        "sharegpt": ShareGptCalibration,
        "hf": HfCalibration,
        "pile": PileCalibration,
        "python_docs": PythonDocsCalibration,
        "mixture": MixtureCalibration,
        "few_shot": FewShotCalibration,
        "interleaved": InterleavedCalibration,
    },
    "evaluation": {"evaluation": Evaluation},
    "tracking": {"tracking": Tracking},
}
