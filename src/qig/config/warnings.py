"""What a configuration may do and is seldom meant to, such as an embedded model's small settings on another model."""

from __future__ import annotations

import re

from qig.config.schema import Config, ModalityGradientSensitivity, QigSensitivity
from qig.config.validation import needs_calibration, reads_weights, rounds_by_inputs
from qig.models.architectures import ARCHITECTURES
from qig.models.checkpoint import EMBEDDED, PACKAGED

OWN_TASK, OWN_CAPTIONS = "qig_digitgrid", "digitgrid"
ALIKE_ALREADY = {"uniform": ("permuted", "modality_mean", "first_mean"), "modality_gradient": ("modality_mean",)}
"""Controls that change nothing, by kind of sensitivity."""


def doubts(config: Config, family: str) -> list[str]:
    """A sentence each, with the override that sets it right. ``family``: what the checkpoint says it is."""
    said = [*_without_effect(config), *_of_two_errors(config), *_misnamed(config),
            *_another_family(config.model.name, family)]
    brought = config.model.path.startswith((EMBEDDED, PACKAGED))
    return said if brought else said + _too_small(config)


def _without_effect(config: Config) -> list[str]:
    kind, equalization, said = config.sensitivity.kind, config.equalization, []
    if reads_weights(config):
        said += _of_sensitivity_without_effect(config)
    elif kind != "uniform":
        said.append(f"sensitivity={kind} has no effect: equalization={equalization.kind} with "
                    f"rounding={config.rounding.kind} reads no token weights; a search does, equalization=grid, and so "
                    "does rounding=gptq")
    if equalization.share_attn_out and "attn_out" not in equalization.sites:
        said.append("equalization.share_attn_out=true has no effect: attn_out is not among equalization.sites="
                    f"{','.join(equalization.sites)}")
    return said


def _of_sensitivity_without_effect(config: Config) -> list[str]:
    """Options that leave the weights as they are without them."""
    sensitivity = config.sensitivity
    kind, control, said = sensitivity.kind, sensitivity.control, []
    if control in ALIKE_ALREADY.get(kind, ()):
        said.append(f"sensitivity.control={control} has no effect: the weights of sensitivity={kind} are alike already")
    if isinstance(sensitivity, QigSensitivity):
        instead = "but for quadrature in place of the closed form"
        if sensitivity.quantized_activations and config.quant.activations is None:
            said.append(f"sensitivity.quantized_activations=true has no effect, {instead}: quant={config.quant.name} "
                        "leaves activations in 16 bits")
        if sensitivity.quantized_branch == "constant" and sensitivity.target != "error":
            said.append(f"sensitivity.quantized_branch=constant has no effect, {instead}: "
                        f"sensitivity.target={sensitivity.target} has no quantized branch")
    return said


def _of_two_errors(config: Config) -> list[str]:
    """MBQ's weights, where a search enters them into absolute errors and the rounding into squared ones."""
    sensitivity = config.sensitivity
    per_token = isinstance(sensitivity, ModalityGradientSensitivity) and sensitivity.balance == "per_token"
    if not (per_token and rounds_by_inputs(config)):
        return []
    return [f"sensitivity.balance=per_token, as MBQ has it for absolute errors; rounding={config.rounding.kind} "
            "squares them, for which the tokens share their modality's weight: sensitivity.balance=per_modality"]


def _misnamed(config: Config) -> list[str]:
    """Tables and model cards call a setting by its name alone."""
    quant, named = config.quant, re.match(r"w(\d+)a(\d+)(?:_|$)", config.quant.name)
    if named is None or quant.weights is None:
        return []
    bits = (quant.weights.bits, 16 if quant.activations is None else quant.activations.bits)
    if bits == tuple(map(int, named.groups())):
        return []
    return [f"quant.name={quant.name} is what tables will call weights of {bits[0]} and activations of {bits[1]} bits; "
            f"name it: quant.name=w{bits[0]}a{bits[1]}"]


def _another_family(name: str, family: str) -> list[str]:
    """A model's name, which its tables go by, that begins with a family, as those of ``conf/model`` do."""
    meant = max((known for known in ARCHITECTURES if name.startswith(known)), key=len, default=family)
    if meant == family:
        return []
    return [f"model.name={name} is what tables will call a checkpoint of the family {family}; name it: "
            "model.name=NAME"]


def _too_small(config: Config) -> list[str]:
    """Settings for the models that this package brings or makes, on another one."""
    evaluation, said = config.evaluation, []
    if evaluation.limit is not None:
        said.append(f"evaluation.limit={evaluation.limit}: only the first {evaluation.limit:,} of each task are "
                    "evaluated; all: evaluation.limit=null")
    if evaluation.max_empty_share >= 1:
        said.append(f"evaluation.max_empty_share={evaluation.max_empty_share:g}: a model that answers nothing is not "
                    "noticed; give it a share, evaluation.max_empty_share=SHARE")
    if OWN_TASK in evaluation.tasks:
        said.append(f"evaluated on {OWN_TASK}, the embedded models' own task; the papers': evaluation=paper, "
                    "evaluation=mbq")
    if needs_calibration(config) and config.calibration.kind == OWN_CAPTIONS:
        said.append("calibrated on DigitGrid's captions, which are for the embedded models; the papers' set: "
                    "calibration=sharegpt4v_coco calibration.path=... calibration.image_folder=...")
    return said
