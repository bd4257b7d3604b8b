"""The schema of every configuration group. Values live in ``conf/``; unknown keys and wrong types are refused.

A field without a default must be given by a YAML file, so that each default stands in one place.
Cross-field rules (a group size that must divide, settings that exclude each other) are in ``validation``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from omegaconf import MISSING


@dataclass
class Outliers:
    """Synthetic, function-preserving outlier channels (lognormal, standard deviation ``sigma``; 0 = none)."""

    sigma: float = MISSING
    seed: int = MISSING


@dataclass
class Model:
    name: str = MISSING
    path: str = MISSING  # a directory, a hub id, embedded:NAME, or packaged:NAME
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = MISSING
    outliers: Outliers = MISSING


@dataclass
class WeightSetting:
    """Integer grid of the weights. ``group_size`` null: one scale per output channel."""

    bits: int = MISSING
    symmetric: bool = MISSING
    group_size: int | None = MISSING


@dataclass
class ActivationSetting:
    """Symmetric, per token, dynamic. ``scale``: max|x| over the largest integer, or over half the range of integers."""

    bits: int = MISSING
    scale: Literal["largest", "range"] = MISSING


@dataclass
class Quant:
    name: str = MISSING
    weights: WeightSetting | None = MISSING
    activations: ActivationSetting | None = MISSING
    linears: str = MISSING  # regular expression over the names of linears inside a decoder block


@dataclass
class Sensitivity:
    """One weight per token.

    ``granularity``: a mean per modality; every token its own but special tokens 0; or special tokens their own, too.
    ``normalize``: weights sum to 1 in each sample, or on average over the corpus.
    ``control``: the weights as they are, shuffled over the tokens of a sample, or their means per modality.
    """

    kind: str = MISSING
    granularity: Literal["modality", "token", "token_special"] = MISSING
    normalize: Literal["sample", "corpus"] = MISSING
    control: Literal["none", "permuted", "modality_mean"] = MISSING
    control_seed: int = MISSING


@dataclass
class UniformSensitivity(Sensitivity):
    pass


@dataclass
class ModalityGradientSensitivity(Sensitivity):
    """MBQ. ``balance`` auto follows the equalization loss as MBQ writes it: mae per_token, mse per_modality."""

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

    ``quantized_branch``: whether gradients flow through f(., w_q), or it counts as a constant (the release's W4A8).
    ``quantized_activations``: whether f(., w_q) also quantizes its activations; completeness cannot hold then.
    ``warmup_sites``: so many first sites get uniform weights over vision and answer tokens (the release's W3A16).
    """

    reference: Literal["zero", "quantized"] = MISSING
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


@dataclass
class Equalization:
    """``share_attn_out``: under grouped-query attention one scale for all query heads of a group, else no scale."""

    kind: str = MISSING
    sites: list[str] = MISSING
    share_attn_out: bool = MISSING


@dataclass
class NoEqualization(Equalization):
    pass


@dataclass
class SmoothQuantEqualization(Equalization):
    alpha: float = MISSING


@dataclass
class GridEqualization(Equalization):
    """Scales mean|x|^r for ``points`` exponents r from 0 in steps of ``step``; the least weighted error wins.

    ``stream``: whose inputs the error is measured on. ``statistic``: mean |x| over tokens, or weighted by lambda.
    ``early_stop``: give up exponents that cannot win; changes no scale, but leaves gaps in the curve of errors.
    """

    points: int = MISSING
    step: float = MISSING
    scope: Literal["module", "linear"] = MISSING
    loss: Literal["mse", "mae"] = MISSING
    stream: Literal["exact", "quantized"] = MISSING
    statistic: Literal["mean", "weighted"] = MISSING
    early_stop: bool = MISSING


@dataclass
class LearnedEqualization(GridEqualization):
    """From the grid's result by gradient: ``steps`` Adam steps over all micro-batches, ``rate`` on the log scales."""

    steps: int = MISSING
    rate: float = MISSING


@dataclass
class Rounding:
    kind: str = MISSING


@dataclass
class NearestRounding(Rounding):
    pass


@dataclass
class ClippedRounding(Rounding):
    """Ranges shrunk by up to ``max_shrink`` in ``points`` steps; not in linears whose name contains one of ``skip``."""

    points: int = MISSING
    max_shrink: float = MISSING
    skip: list[str] = MISSING


@dataclass
class GptqRounding(Rounding):
    """``stream``: whose inputs the Hessian is made of. GPTAQ always reads both."""

    stream: Literal["exact", "quantized"] = MISSING
    damping: float = MISSING
    block: int = MISSING
    order_by_activation: bool = MISSING
    static_groups: bool = MISSING


@dataclass
class Calibration:
    """``max_skipped_share``: how many of the chosen samples may turn out unusable before it is an error."""

    kind: str = MISSING
    samples: int = MISSING
    seed: int = MISSING
    tokens_per_batch: int = MISSING
    max_skipped_share: float = MISSING


@dataclass
class DigitGridCalibration(Calibration):
    pass


@dataclass
class ShareGptCalibration(Calibration):
    """Records of ShareGPT4V's form. ``image_prefix``: only those whose image paths begin so; null: all."""

    path: str = MISSING  # json or jsonl
    image_folder: str = MISSING
    image_prefix: str | None = MISSING
    images: Literal["native", "pad"] = MISSING


@dataclass
class HfCalibration(Calibration):
    """One question and answer a row of a Hugging Face data set, a local file or directory, by the columns' names.

    ``prompt``: one text for all rows, instead of ``prompt_column``. ``answers``: which of several right answers.
    ``image_folder``: where image paths of a column are looked up; images inside the data set need none.
    """

    path: str = MISSING  # file, directory, or hub id
    name: str | None = MISSING
    split: str = MISSING
    image_columns: list[str] = MISSING
    image_folder: str | None = MISSING
    image_position: Literal["before", "after"] = MISSING
    images: Literal["native", "pad"] = MISSING
    prompt_column: str | None = MISSING
    prompt: str | None = MISSING
    answer_column: str = MISSING
    answers: Literal["first", "joined"] = MISSING
    joiner: str = MISSING
    id_column: str | None = MISSING


@dataclass
class PileCalibration(Calibration):
    """Text without images or chat template, cut to ``max_tokens`` tokens."""

    path: str = MISSING  # file, directory, or hub id
    name: str | None = MISSING
    split: str = MISSING
    text_column: str = MISSING
    max_tokens: int = MISSING


@dataclass
class PythonDocsCalibration(Calibration):
    """Passages of the calibration part of Python's own documentation, cut to ``max_tokens`` tokens."""

    max_tokens: int = MISSING


@dataclass
class MixtureCalibration(Calibration):
    """Other sets, each with its share of the samples. What the whole says of samples and seed holds for the parts."""

    shares: dict[str, float] = MISSING
    parts: dict[str, Calibration] = MISSING


@dataclass
class FewShotCalibration(Calibration):
    """``shots`` samples of another set in a row make one."""

    shots: int = MISSING
    of: Calibration = MISSING


@dataclass
class InterleavedCalibration(Calibration):
    """``conversations`` samples of another set in a row, with a plain text between each two, make one."""

    conversations: int = MISSING
    of: Calibration = MISSING
    text: Calibration = MISSING


@dataclass
class TextEvaluation:
    """Likelihood of running text: so many tokens (``window``) from the beginning of each passage of a corpus."""

    corpus: Literal["python_docs"] = MISSING
    window: int = MISSING


@dataclass
class Evaluation:
    """Questions of lmms-eval's tasks (none: an empty list), running text (null: none), or both.

    ``limit``: so many questions of each task, and passages. ``processes``: how many share them, each with the model on
    an accelerator of its own.
    """

    tasks: list[str] = MISSING
    text: TextEvaluation | None = MISSING
    limit: int | None = MISSING
    batch_size: int = MISSING
    nll: bool = MISSING
    protocol: Literal["plain", "wrapper", "corrected"] = MISSING
    max_empty_share: float = MISSING
    max_unparsed_share: float = MISSING
    processes: int = MISSING
    seed: int = MISSING


@dataclass
class Memory:
    """``activations``: where hidden states of the calibration samples wait for their turn."""

    activations: Literal["device", "host", "disk"] = MISSING


@dataclass
class Tracking:
    kind: Literal["wandb", "none"] = MISSING
    mode: Literal["offline", "online", "disabled"] = MISSING
    project: str = MISSING
    entity: str | None = MISSING
    dir: str = MISSING
    group: str | None = MISSING
    tags: list[str] = MISSING
    artifacts: bool = MISSING


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
    "rounding": {"nearest": NearestRounding, "clipped": ClippedRounding, "gptq": GptqRounding},
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
