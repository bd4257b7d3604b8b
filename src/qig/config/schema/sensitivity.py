"""Options of the estimators of token weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from omegaconf import MISSING


@dataclass
class Sensitivity:
    """One weight per token.

    ``granularity``: a mean per modality; every token its own but special tokens 0; or special tokens their own, too.
    ``normalize``: weights sum to 1 in each sample, or on average over the corpus.
    ``control``: the weights as they are, shuffled over the tokens of a sample, their means per modality, their mean
    over all tokens of a sample but the first, or 0 at the first.
    """

    kind: str = MISSING
    granularity: Literal["modality", "token", "token_special"] = MISSING
    normalize: Literal["sample", "corpus"] = MISSING
    control: Literal["none", "permuted", "modality_mean", "first_mean", "without_first"] = MISSING
    control_seed: int = MISSING


@dataclass
class UniformSensitivity(Sensitivity):
    pass


@dataclass
class ModalityGradientSensitivity(Sensitivity):
    """MBQ. ``balance`` auto follows the error that the weights enter, as MBQ writes it: absolute per_token, squared
    per_modality (GPTQ's, GPTAQ's and clipping's are squared).
    """

    balance: Literal["auto", "per_token", "per_modality"] = MISSING


@dataclass
class TokenGradientSensitivity(Sensitivity):
    pass


@dataclass
class AttentionSensitivity(Sensitivity):
    pass


@dataclass
class PerturbationSensitivity(Sensitivity):
    """``rows_per_batch``: copies of a sample, each with another token quantized, that go through attention together."""

    rows_per_batch: int = MISSING


@dataclass
class QigSensitivity(Sensitivity):
    """Quantization-aware integrated gradients.

    ``reference``: x' is zero; or the quantized stream's x_q, where activations are integers on their grid
    (``quantized``), or as the stream has it (``stream``: the release's W4A8).
    ``quantized_branch``: whether gradients flow through f(., w_q), or it counts as a constant (the release's W4A8).
    ``quantized_activations``: whether f(., w_q) also quantizes its activations; completeness cannot hold then.
    ``warmup_sites``: so many first sites get uniform weights over vision and answer tokens (the release's W3A16).
    """

    reference: Literal["zero", "quantized", "stream"] = MISSING
    target: Literal["error", "output", "error_vs_reference"] = MISSING
    quantized_branch: Literal["differentiable", "constant"] = MISSING
    quantized_activations: bool = MISSING
    factor: float = MISSING
    warmup_sites: int = MISSING
    quadrature: Literal["gauss_legendre", "midpoint", "riemann_left"] = MISSING
    nodes: int = MISSING
    max_nodes: int = MISSING
    tolerance: float = MISSING
    score: Literal["abs_mean", "signed_sum"] = MISSING
    clip: Literal["none", "iqr", "top5_zero", "top5_mean"] = MISSING
    clip_factor: float = MISSING
    closed_form: bool = MISSING
