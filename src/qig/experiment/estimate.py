"""What the missing runs of experiments would cost with the embedded models: said before anything starts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from qig.config.schema import Config
from qig.config.validation import baseline, needs_calibration
from qig.experiment.gather import Planned
from qig.runner import BASELINES

# Seconds on 2 cores, measured with the embedded models and 64 captions; a rough guide for nothing else.
RUN = 2.5
QUESTION = {True: 0.006, False: 0.004}
"""By whether the answers' likelihood is asked for, too."""
SAMPLE = {"uniform": 0.0, "modality_gradient": 0.02, "token_gradient": 0.02, "attention": 0.02, "perturbation": 0.4,
          "qig": 0.1}  # fmt: skip
SEARCH = {"none": 0.0, "smoothquant": 0.01, "grid": 0.045, "learned": 0.25}
ROUNDING = {"none": 0.0, "nearest": 0.0, "clipped": 0.05, "gptq": 0.06, "gptaq": 0.08}
QUESTIONS = 2200
REACHED_NODES = 8
"""What the adaptive rule comes to at the sites that need most; ``SAMPLE`` was measured with it."""


@dataclass(frozen=True)
class Estimate:
    """Distinct runs (baselines included), those that are missing, and the seconds that these would take."""

    runs: int
    missing: int
    seconds: float


def estimate(planned: Iterable[Planned], seen: set[str] | None = None) -> Estimate:
    """The cost of what is missing; ``seen`` collects the runs and stages already counted, over several experiments."""
    seen = set() if seen is None else seen
    runs = missing = 0
    seconds = 0.0
    for one in planned:
        every = [one.config]
        if one.config.method != "none":
            every += [baseline(one.config, name) for name in BASELINES.values()]
        for config in every:
            keys = one.stages.keys(config)
            if keys.run in seen:
                continue
            seen.add(keys.run)
            runs += 1
            if one.stages.store.path("runs", keys.run).is_dir():
                continue
            missing += 1
            seconds += RUN
            for kind, key, cost in (("quantized", keys.quantized, _calibration(config)),
                                    ("evaluation", keys.evaluation, _evaluation(config))):
                if key is not None and key not in seen and not one.stages.store.path(kind, key).is_dir():
                    seconds += cost
                    seen.add(key)
    return Estimate(runs, missing, seconds)


def _calibration(config: Config) -> float:
    if not needs_calibration(config):
        return 0.0
    attribution = SAMPLE.get(config.sensitivity.kind, 0.0)
    attribution *= max(1.0, getattr(config.sensitivity, "nodes", REACHED_NODES) / REACHED_NODES)
    if getattr(config.sensitivity, "closed_form", True) is False:
        attribution *= 2
    a_sample = attribution + SEARCH.get(config.equalization.kind, 0.0) + ROUNDING.get(config.rounding.kind, 0.0)
    return config.calibration.samples * a_sample


def _evaluation(config: Config) -> float:
    questions = min(config.evaluation.limit or QUESTIONS, QUESTIONS)
    return QUESTION[config.evaluation.nll] * questions * len(config.evaluation.tasks)
