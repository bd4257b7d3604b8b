"""What a run is scored on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from omegaconf import MISSING

WHERE = ("processes", "sharded")
"""What decides where an evaluation works."""
APART = (*WHERE, "max_empty_share", "max_unparsed_share")
"""What changes no answer: where it works, and how many empty or unparsed ones are let pass."""


@dataclass
class TextEvaluation:
    """Likelihood of running text: so many tokens (``window``) from the beginning of each passage of a corpus."""

    corpus: Literal["python_docs"] = MISSING
    window: int = MISSING


@dataclass
class Evaluation:
    """Questions of lmms-eval's tasks (none: an empty list), running text (null: none), or both.

    ``include_path``: a folder with tasks of the user's in lmms-eval's form, which ``tasks`` may name, too.
    ``limit``: so many questions of each task, and passages. ``processes``: how many share them, each with the model on
    an accelerator of its own. ``sharded``: one model over all accelerators.
    """

    tasks: list[str] = MISSING
    include_path: str | None = MISSING
    text: TextEvaluation | None = MISSING
    limit: int | None = MISSING
    batch_size: int = MISSING
    nll: bool = MISSING
    protocol: Literal["plain", "wrapper", "corrected"] = MISSING
    max_empty_share: float = MISSING
    max_unparsed_share: float = MISSING
    processes: int = MISSING
    sharded: bool = MISSING
    seed: int = MISSING
