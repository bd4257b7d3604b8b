"""What a run is scored on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from omegaconf import MISSING

WHERE = ("processes", "sharded")
"""What decides where an evaluation works."""
APART = (*WHERE, "max_empty_share", "max_unparsed_share")
"""What changes no answer: where it works, and how many empty or unparsed ones are let pass."""

BUILT_IN = "python_docs"
"""The text that needs no path."""


@dataclass
class TextEvaluation:
    """Likelihood of running text, ``window`` tokens at a time.

    ``corpus``: ``python_docs``, the passages that come with Python, of which each gives its first ``window`` tokens; or
    what tables are to call the text at ``path``, which is cut into windows from its first token on; null: none.
    ``path``: a file, a directory or a data set of the hub, of which ``name`` is the configuration and ``split`` the
    part; the rows of its ``text_column`` are the text.
    """

    corpus: str | None = MISSING
    window: int = MISSING
    path: str | None = MISSING
    name: str | None = MISSING
    split: str = MISSING
    text_column: str = MISSING


@dataclass
class Evaluation:
    """Questions of lmms-eval's tasks (none: an empty list), running text, or both.

    ``include_path``: a folder with tasks of the user's in lmms-eval's form, which ``tasks`` may name, too.
    ``limit``: so many questions of each task, and passages. ``processes``: how many share them, each with the model on
    an accelerator of its own. ``sharded``: one model over all accelerators.
    """

    tasks: list[str] = MISSING
    include_path: str | None = MISSING
    text: TextEvaluation = MISSING
    limit: int | None = MISSING
    batch_size: int = MISSING
    nll: bool = MISSING
    protocol: Literal["plain", "wrapper", "corrected"] = MISSING
    max_empty_share: float = MISSING
    max_unparsed_share: float = MISSING
    processes: int = MISSING
    sharded: bool = MISSING
    seed: int = MISSING

    @property
    def running_text(self) -> TextEvaluation | None:
        """``text``, where there is a corpus."""
        return None if self.text.corpus is None else self.text
