"""What a sensitivity estimator is given and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from qig.about import About
from qig.blockwise.activations import Activations
from qig.blockwise.site import SiteView
from qig.config.schema import Sensitivity
from qig.data.calibration import CalibrationBatch
from qig.models.loading import LoadedModel
from qig.sensitivity.kept_gradients import Gradients
from qig.sensitivity.shared_gradients import SharedGradients


@dataclass(frozen=True)
class WholeModel:
    """What an estimator is given before the first block is touched.

    Attributes:
        shared: where gradients are kept and found again; by default in memory, for this pass alone.
    """

    loaded: LoadedModel
    batches: list[CalibrationBatch]
    activations: Activations
    shared: SharedGradients = field(default_factory=SharedGradients)

    def gradients(self) -> list[Gradients]:
        """Of the loss, at the outputs of each half of the blocks; see ``output_gradients``."""
        return self.shared.of(self.loaded, self.batches, self.activations)


@dataclass(frozen=True)
class Scores:
    """Token scores of one site, before granularity and normalisation.

    Attributes:
        values: ``[batch, tokens]`` per micro-batch, non-negative; values at padding are ignored.
        completeness: relative residual of the integral, where the estimator integrates.
        nodes: quadrature nodes used; 0 for a closed form.
        fallback: why the estimator could say nothing and the weights are uniform.
    """

    values: list[Tensor]
    completeness: float | None = None
    nodes: int | None = None
    fallback: str | None = None


class Estimator(ABC):
    """Turns a site into one score per token.

    ``per_modality``: the scores are constant within a modality already, so that ``granularity=modality`` has nothing
    left to average (and must not spread weight over text tokens that the method weighs zero).
    """

    about: ClassVar[About]
    needs_quantized_stream = False
    per_modality = False

    def __init__(self, config: Sensitivity) -> None:
        self.config = config

    def prepare(self, whole: WholeModel) -> None:  # noqa: B027 - most estimators need nothing
        """Whole-model work before the first block is touched (gradients of the loss); nothing by default."""

    @abstractmethod
    def scores(self, view: SiteView) -> Scores:
        """Scores of every token at this site."""
