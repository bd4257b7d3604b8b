"""An experiment's runs as its sweeps left them: found without device, checkpoint or data, whatever code made them.

The jobs' folders say which words each had and which run it left (``qig.report.jobs``); no identity is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from qig.errors import StoreError
from qig.experiment.gather import Found, Row, arms_of, jobs_of, sweep_of, table_of
from qig.experiment.jobs import is_of_sweep, is_telling, parsed
from qig.experiment.spec import read_figures
from qig.report.jobs import Job, read_jobs
from qig.report.records import Run, load_run
from qig.report.tables.placing import checked_table
from qig.store import find_damage

SWEEP_FILE = "multirun.yaml"
THREADS = "threads"  # a sweep gives its jobs those of the machine, where its command gave none
NEEDS_CHECKPOINT = ("token_image",)


def gather_from(name: str, overrides: Sequence[str], sweeps: Sequence[Path]) -> Found:
    """Experiment ``name`` with the runs that the jobs of ``sweeps`` left, matched by their words.

    The words are those of the sweeps' own commands; several sweeps are taken for one over all values of each key.
    ``overrides`` replace words of the same key. Of two jobs with the same words the later sweep's counts,
    unless it left no run.

    Raises:
        ConfigError: two jobs fall into one cell.
        StoreError: a folder is no sweep of the experiment, a job that the table needs left no run, or it is damaged.
    """
    words = _joined([_words(name, folder) for folder in sweeps], overrides)
    every = sorted((job for folder in sweeps for job in read_jobs(folder)), key=lambda job: job.run is not None)
    left = {_telling(job.overrides, but): job for but in (THREADS, None) for job in every}
    found = [(job, left.get(_telling(job.overrides))) for job in jobs_of(name, words)]
    if any(one is None or one.run is None for _, one in found):
        raise StoreError(_absent(name, [(job.arm, job.overrides, one) for job, one in found], sweeps))
    runs = {(one.store, one.run): _verified(one.store, one.run) for _, one in found}
    rows = [Row(job.arm, dict(job.point), runs[one.store, one.run]) for job, one in found]
    table = checked_table(table_of(name, words), name, rows)
    figures = tuple(kind for kind in read_figures(sweep_of(name, words)["figures"]) if kind not in NEEDS_CHECKPOINT)
    return Found(name, tuple(words), table, rows, figures, arms_of(name, words), tuple(map(str, sweeps)))


def _telling(words: Sequence[str], but: str | None = None) -> frozenset[str]:
    """The words that can change a result, without those of the key ``but``."""
    return frozenset(word for word in words if is_telling(word) and word.partition("=")[0] != but)


def _words(name: str, folder: Path) -> list[str]:
    """What the sweep's command said beside the experiment: its jobs' words, and those of how they are tabulated."""
    try:
        said = OmegaConf.to_container(OmegaConf.load(folder / SWEEP_FILE), resolve=False)["hydra"]["overrides"]
        task, own = ([str(word) for word in said[part]] for part in ("task", "hydra"))
    except FileNotFoundError as error:
        raise StoreError(f"{folder} is no folder of a sweep: expected {SWEEP_FILE} in it") from error
    except (OSError, ValueError, KeyError, TypeError, IndexError, YAMLError, OmegaConfBaseException) as error:
        raise StoreError(f"{folder / SWEEP_FILE} is not as a sweep leaves it: {type(error).__name__}") from error
    swept = [word.partition("=")[2] for word in task if word.startswith("+experiment=")]
    if swept != [name]:
        raise StoreError(f"{folder} is a sweep of {', '.join(swept) or 'no experiment'}; expected +experiment={name}")
    return [*(word for word in task if not word.startswith("+experiment=")), *filter(is_of_sweep, own)]


def _joined(commands: Sequence[Sequence[str]], overrides: Sequence[str]) -> list[str]:
    """One command's words for several: of each key all values, or what ``overrides`` say."""
    said = _by_key(word for words in commands for word in words) | _by_key(overrides)
    return [words[0] if len(words) == 1 else
            f"{key}={','.join(dict.fromkeys(value for word in words for value in parsed([word])[key]))}"
            for key, words in said.items()]


def _by_key(words: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in dict.fromkeys(words):
        (key,) = parsed([word])
        found.setdefault(key, []).append(word)
    return found


def _verified(store: Path, run: str) -> Run:
    found = load_run(store, run)
    damage = find_damage(store / "runs" / run)
    if damage is not None:
        raise StoreError(f"run {run} in {store} is damaged: {damage}")
    return found


def _absent(name: str, jobs: Sequence[tuple[str | None, Sequence[str], Job | None]], sweeps: Sequence[Path]) -> str:
    lines = [f"  {arm or 'a job'}: {' '.join(words)}: "
             f"{'no such job' if one is None else f'{one.folder}: {one.error}'}"
             for arm, words, one in jobs if one is None or one.run is None]
    more = [f"  and {len(lines) - 20} more"] if len(lines) > 20 else []
    return "\n".join([f"{len(lines)} of {len(jobs)} jobs of {name} left no run in {', '.join(map(str, sweeps))}:",
                      *lines[:20], *more])
