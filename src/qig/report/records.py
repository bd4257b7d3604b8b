"""Finished runs, read back from the store: the record at once, the per-sample files when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from qig.data.tokens import TokenKind
from qig.errors import EvaluationError, StoreError, choices
from qig.report import schema
from qig.store.files import sha256

if TYPE_CHECKING:
    import numpy as np

TOKEN_KINDS = {int(kind): kind.name.lower() for kind in TokenKind if kind != TokenKind.PADDING}
"""Names of the codes in ``kinds``; 0 is padding and is not stored."""

@dataclass(frozen=True)
class Sensitivities:
    """Token weights of all calibration samples, laid end to end without padding.

    ``weights[block, site]`` is float32 [tokens] and sums to 1 over each sample, or (``normalize: corpus``) over an
    average one; ``kinds`` is uint8 [tokens]
    (see :data:`TOKEN_KINDS`); ``sample`` is int32 [tokens], the index of the calibration sample.
    """

    weights: Mapping[tuple[int, str], np.ndarray]
    kinds: np.ndarray
    sample: np.ndarray

    @property
    def blocks(self) -> list[int]:
        """Indices of the decoder blocks with at least one weighted site, ascending."""
        return sorted({block for block, _ in self.weights})

    def select(self, sample: int) -> Sensitivities:
        """The tokens of one calibration sample; StoreError when there is no such sample."""
        chosen = self.sample == sample
        if not chosen.any():
            raise StoreError(choices(sample, sorted(set(self.sample.tolist())), "calibration sample"))
        weights = {key: weight[chosen] for key, weight in self.weights.items()}
        return Sensitivities(weights, self.kinds[chosen], self.sample[chosen])


@dataclass(frozen=True)
class Run:
    """One finished run. ``record`` is the content of its record.json; the other files are read on first use."""

    store: Path
    record: Mapping[str, Any]

    @property
    def id(self) -> str:
        return self.record["id"]

    @property
    def method(self) -> str:
        return self.record["method"]

    @property
    def config(self) -> Mapping[str, Any]:
        return self.record["config"]

    @property
    def model(self) -> str:
        return self.config["model"]["name"]

    @property
    def setting(self) -> str:
        return self.config["quant"]["name"]

    @property
    def outlier_sigma(self) -> float:
        """Spread of the synthetic outliers that were put into the model; 0 where there are none."""
        return float((self.config["model"].get("outliers") or {}).get("sigma") or 0.0)

    @cached_property
    def samples(self) -> list[dict[str, Any]]:
        """One dict an evaluated sample: task, sample, cluster, type, target, answer, score, nll, empty."""
        path = self.evaluation_folder / "samples.jsonl"
        try:
            lines = schema.read(path).splitlines()
        except FileNotFoundError as error:
            raise StoreError(f"run {self.id} has no evaluation samples: expected {path}") from error
        recorded = self._evaluated.get(path.name)
        if recorded is not None and sha256(path) != recorded:
            raise StoreError(f"run {self.id}: {path} does not match the checksum in its record; the command that made "
                             "the run makes it anew")
        return [schema.parsed(line, f"{path}, line {i}", schema.SAMPLE) for i, line in enumerate(lines, start=1)]

    @property
    def documents(self) -> Mapping[str, str]:
        """task -> hash of what its documents said, and of running text."""
        return self._evaluated.get("documents", {})

    @property
    def evaluation_folder(self) -> Path:
        """The stage that holds the evaluated samples."""
        return self.store / "evaluation" / self.record["stages"]["evaluation"]

    @property
    def _evaluated(self) -> Mapping[str, Any]:
        return (self.record.get("data") or {}).get("evaluation", {})

    @cached_property
    def by_task(self) -> dict[str, dict[str, Mapping[str, Any]]]:
        """task -> sample id -> line of ``samples``; EvaluationError when a sample comes twice."""
        tasks: dict[str, dict[str, Mapping[str, Any]]] = {}
        for line in self.samples:
            samples = tasks.setdefault(line["task"], {})
            if line["sample"] in samples:
                raise EvaluationError(f"run {self.id} has sample {line['sample']!r} of task {line['task']!r} twice; "
                                      "expected each sample once")
            samples[line["sample"]] = line
        return tasks

    @property
    def combined(self) -> dict[str, dict[str, Mapping[str, Any]]]:
        """Those of ``by_task`` that one number may sum up: the benchmarks, or running text where it is alone.

        Text has nats a token and the most likely tokens, a benchmark nats an answer and right answers.
        """
        return {task: samples for task, samples in self.by_task.items() if task != self.corpus} or self.by_task

    @property
    def corpus(self) -> str | None:
        """The running text that was evaluated, as a task of that name."""
        return (self.config["evaluation"].get("text") or {}).get("corpus")

    @property
    def quantized_folder(self) -> Path | None:
        """Folder of the quantized stage; None for a run that quantizes nothing."""
        key = self.record["stages"].get("quantized")
        return self.store / "quantized" / key if key else None

    @property
    def has_sensitivities(self) -> bool:
        """Whether the run weighs tokens at all; a data-free method leaves an empty file."""
        return bool(self._tensors)

    @cached_property
    def sensitivities(self) -> Sensitivities:
        """The token weights of the quantized stage; StoreError for a run without any."""
        if not self._tensors:
            raise StoreError(f"run {self.id} ({self.method}) has no token sensitivities: it weighs no tokens")
        weights = {}
        for name, values in self._tensors.items():
            parts = name.split(".")
            if len(parts) == 3 and parts[0] == "block" and parts[1].isdecimal():
                weights[int(parts[1]), parts[2]] = values
        return Sensitivities(weights, self._tensors["kinds"], self._tensors["sample"])

    @cached_property
    def _tensors(self) -> dict[str, np.ndarray]:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = self.quantized_folder and self.quantized_folder / "sensitivity.safetensors"
        if path is None or not path.is_file():
            return {}
        try:
            found = load_file(path)
        except (OSError, SafetensorError, KeyError, TypeError) as error:  # the last two: types that numpy has not
            raise StoreError(f"{path} is not a readable safetensors file: {error}") from error
        if found and ({"kinds", "sample"} - found.keys() or len({v.shape for v in found.values()}) > 1):
            raise StoreError(f"{path} does not hold kinds, samples and weights of the same tokens")
        return found


class Nouns(NamedTuple):
    """What a table calls a sample, with its preposition, and what several samples share."""

    samples: str
    preposition: str
    clusters: str
    one: str


QUESTIONS = Nouns("questions", "on", "images", "an image")
PASSAGES = Nouns("passages", "of", "documents", "a document")


def nouns(runs: Sequence[Run]) -> Nouns:
    """Those of what is ``combined``: of benchmarks, or of running text."""
    asked = any(run.config["evaluation"].get("tasks", True) for run in runs)
    return QUESTIONS if asked else PASSAGES


def limited(runs: Sequence[Run]) -> str:
    """``only the first 1,100 of each task (evaluation.limit)`` where a limit ended a run's evaluation; else empty."""
    cut = sorted({limit for run in runs if (limit := run.config["evaluation"].get("limit"))
                  and limit in map(len, run.by_task.values())})
    return f"only the first {' or '.join(f'{limit:,}' for limit in cut)} of each task (evaluation.limit)" if cut else ""


def load_run(store: Path, run_id: str) -> Run:
    """The run ``run_id`` of a store; StoreError when it is absent, unreadable or no record of a run."""
    runs = Path(store) / "runs"
    path = runs / run_id / "record.json"
    try:
        text = schema.read(path)
    except FileNotFoundError as error:
        if not runs.is_dir():
            raise StoreError(f"no store of runs at {store}: expected the folder {runs}") from error
        known = [entry.name for entry in runs.iterdir() if (entry / "record.json").is_file()]
        if not known:
            raise StoreError(f"no run {run_id!r} in {runs}, which holds no finished run") from error
        raise StoreError(choices(run_id, known, f"run in {runs}")) from error
    return Run(Path(store), schema.parsed(text, f"the run record {path}", schema.RECORD))
