"""What a configuration may do and is seldom meant to: an embedded model's small settings on a model of one's own."""

from __future__ import annotations

from qig.config.schema import Config
from qig.config.validation import needs_calibration
from qig.models.checkpoint import EMBEDDED, PACKAGED

OWN_TASK, OWN_CAPTIONS = "qig_digitgrid", "digitgrid"


def doubts(config: Config) -> list[str]:
    """A sentence each, with the override that sets it right; none for the models that this package brings or makes."""
    if config.model.path.startswith((EMBEDDED, PACKAGED)):
        return []
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
