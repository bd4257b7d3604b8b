"""The recipe: checkpoint -> calibration -> block pass -> quantized model -> benchmark -> run record.

Each stage is an artefact of the store under the identity of what decides it; what is there is not computed again.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qig.config.nested import with_inner_sets
from qig.config.rules import check_text_only
from qig.config.schema import Config
from qig.config.validation import baseline, needs_calibration, reads_weights, resolve
from qig.config.warnings import doubts
from qig.data.sets import check_available
from qig.errors import DataError, QigError, UnscoredError
from qig.evaluation.corpora import users_text
from qig.evaluation.datasets import check_datasets
from qig.evaluation.protocols import protocol_of
from qig.evaluation.registry import check_no_pictures, check_tasks
from qig.models import checkpoint
from qig.models.architectures import architecture_of
from qig.stages import STORED, Stages, decide

log = logging.getLogger(__name__)
BASELINES = {"16 bit": "none", "rtn": "rtn"}


def checked(config: Config, ask: Callable[..., Any] = operator.call) -> tuple[Config, Path]:
    """The resolved configuration and its checkpoint, after every check that needs neither the device nor the store.

    ``ask(check, *arguments)`` asks what takes time; whoever checks many configurations asks it once of each.

    Raises:
        QigError: the configuration, the benchmark's name, the text to evaluate on, the checkpoint or the calibration
            set does not allow it.
    """
    config = resolve(config)
    tasks = config.evaluation.tasks
    if tasks:
        ask(check_tasks, tasks, config.evaluation.include_path)
    if config.evaluation.text.path is not None:
        ask(users_text, config.evaluation.text)
    directory = ask(checkpoint.resolve, config.model.path)
    family = checkpoint.model_type(directory)
    if architecture_of(family).text_only:
        if needs_calibration(config):
            check_text_only(config, f"{config.model.name} is a language model without vision tokens")
        check_no_pictures(tasks)
    if tasks:
        protocol_of(config.evaluation.protocol, family)
    decide(config, directory)
    if needs_calibration(config):
        ask(check_available, with_inner_sets(replace(config.calibration, seed=0)))  # no seed decides what is there
    weights = config.quant.weights
    if weights is not None:
        ask(checkpoint.check_group_size, directory, config.quant.linears, weights.group_size)
    return config, directory


@dataclass(frozen=True)
class Outcome:
    """A finished run, whether it was in the store already, and the runs it is compared with."""

    run: str
    cached: bool
    baselines: dict[str, str]
    store: Path

    def left(self) -> dict[str, Any]:
        """What its job leaves in run.json."""
        return {"run": self.run, "baselines": self.baselines, "store": str(self.store), "cached": self.cached}


class Prepared:
    """A configuration that has passed every check that can be made without loading anything.

    Raises:
        QigError: the configuration, the benchmark's name, the checkpoint, the device or the store does not allow it.
    """

    def __init__(self, config: Config) -> None:
        self.config, self._checkpoint = checked(config)
        self._stages = Stages.of(self.config, checkpoint.content_hash(self._checkpoint))
        method = self.config.method
        self._baselines = {
            title: baseline(self.config, name)
            for title, name in BASELINES.items()
            if method not in ("none", STORED, name)
        }

    @property
    def key(self) -> str:
        """The id that the run has, or will have."""
        return self._stages.keys(self.config).run

    @property
    def cached(self) -> bool:
        """Whether this run and those it is compared with are in the store already."""
        every = (self.config, *self._baselines.values())
        return all(self._stages.has_record(self._stages.keys(config)) for config in every)

    def plan(self) -> str:
        """What the calibration will take, in words; no weight is read, and nothing is run but a rehearsal."""
        if self.config.quant.weights is None:
            return "  16 bit: nothing is calibrated"
        import torch

        from qig.environment import quiet
        from qig.planning.plan import plan

        quiet()
        return plan(self.config, torch.device(self._stages.device)).text()

    def run(self) -> Outcome:
        """The baselines, then the run itself; baselines that another process is at come last, so that none waits.

        A baseline that cannot be had, such as one whose answers are no answers, does not keep the run from being made;
        one for which there are no questions, or none that can be scored, does, since the run would be asked the same.

        Raises:
            QigError: data or model turn out unusable; nothing is left that a later run would take for finished.
        """
        if not self.cached:
            check_datasets(self.config.evaluation.tasks, self.config.evaluation.include_path)
            self._check_calibration()
            for doubt in doubts(self.config, checkpoint.model_type(self._checkpoint)):
                log.warning("%s %s: %s", self.config.model.name, self.config.method, doubt)
        elsewhere = [title for title, config in self._baselines.items() if self._stages.is_made_elsewhere(config)]
        found = {title: self._baseline(title) for title in self._baselines if title not in elsewhere}
        run_id, cached = self._stages.record(self.config)
        found |= {title: self._baseline(title) for title in elsewhere}
        baselines = {title: found[title] for title in self._baselines if found[title] is not None}
        return Outcome(run_id, cached, baselines, self._stages.store.root)

    def _check_calibration(self) -> None:
        """Its samples, before the baselines, which take long, unless they have been used already."""
        config, quantized = self.config, self._stages.keys(self.config).quantized
        if needs_calibration(config) and not self._stages.store.path("quantized", quantized).is_dir():
            from qig.data.calibration import decodable

            samples = decodable(config.calibration)
            if reads_weights(config) and not any(sample.images for sample in samples):
                check_text_only(config, f"no sample of calibration set {config.calibration.kind!r} has an image")

    def _baseline(self, title: str) -> str | None:
        try:
            return self._stages.record(self._baselines[title])[0]
        except (DataError, UnscoredError):
            raise
        except QigError as error:
            log.error("%s: %s. The run is not compared with it", title, error)
            return None
