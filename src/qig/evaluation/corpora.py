"""Running text to evaluate on: the passages that come with Python, or a text of the user's in windows of tokens."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from qig.config.schema import TextEvaluation
from qig.data.python_docs import EVALUATION, content_hash, passages
from qig.data.sets.base import local
from qig.data.sets.tables import open_table
from qig.errors import DataError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Passage:
    """Tokens ``ids [tokens]`` and which of them the tokenizer ``added``, whose likelihood nobody asks for.

    ``name`` is unique; ``document`` is what it is from, ``kind`` the kind of that, where there are several.
    """

    name: str
    document: str
    kind: str
    ids: torch.Tensor
    added: torch.Tensor


def passages_of(text: TextEvaluation, tokenizer, limit: int | None) -> list[Passage]:
    """The first ``limit`` passages of a corpus.

    A text of the user's is tokenized in one piece and cut from its beginning; what is left at its end, shorter than a
    window, is dropped (as GPTQ's code does, arXiv 2210.17323). Its windows stand for themselves: of what documents it
    is made is not known.

    Raises:
        DataError: the corpus is not there, or shorter than a window.
    """
    if text.path is None:
        return [
            Passage(
                passage.name,
                passage.document,
                passage.document.partition("/")[0],
                *_tokens(tokenizer, passage.text, truncation=True, max_length=text.window),
            )
            for passage in passages(EVALUATION)[:limit]
        ]
    ids, added = _tokens(tokenizer, users_text(text))
    whole = len(ids) // text.window
    if not whole:
        window = f"evaluation.text.window={text.window}"
        raise DataError(f"evaluation.text.path={text.path}: its {len(ids):,} tokens are fewer than {window}")
    cuts = (slice(i * text.window, (i + 1) * text.window) for i in range(whole)[:limit])
    names = (f"{text.corpus}#{i}" for i in range(whole))
    return [Passage(name, name, "", ids[cut], added[cut]) for name, cut in zip(names, cuts, strict=False)]


def users_text(text: TextEvaluation) -> str:
    """The text at ``path``: a ``.txt`` file as it is, else the rows of ``text_column``, an empty line between each two.

    Raises:
        DataError: it is not there, or is no text.
    """
    file = local(text.path)
    state = (file.stat().st_size, file.stat().st_mtime_ns) if file.is_file() else None
    return _read(text.path, text.name, text.split, text.text_column, state)


def text_record(text: TextEvaluation) -> dict[str, Any]:
    """What is evaluated on, wherever it lies: all that decides it but the tokenizer."""
    own = text.path is not None  # else the text depends on Python's version
    content = hashlib.sha256(users_text(text).encode()).hexdigest() if own else content_hash(EVALUATION)
    return {"corpus": text.corpus, "window": text.window, "sha256": content}


@lru_cache(maxsize=1)  # asked for by each job of a sweep
def _read(path: str, name: str | None, split: str, column: str, state: tuple[int, int] | None) -> str:
    """``state``: size and time of a file, for it to be read anew where it has changed."""
    place = local(path)
    try:
        if place.suffix == ".txt" and place.is_file():
            with place.open(encoding="utf-8-sig", newline="") as stream:
                text = stream.read()
        else:
            text = "\n\n".join(_rows(path, name, split, column))
        text.encode()  # JSON can hold halves of characters
    except (OSError, UnicodeError) as error:
        raise DataError(f"evaluation.text.path={path} cannot be read: {error}") from error
    if not text.strip():
        raise DataError(f"evaluation.text.path={path}: expected a text, got an empty one")
    return text


def _rows(path: str, name: str | None, split: str, column: str) -> list[str]:
    table = open_table(path, name, split, [column], "evaluation.text.path")
    rows = [row[column] for row in table.rows(range(table.length))]
    if not all(isinstance(row, str) for row in rows):
        raise DataError(f"evaluation.text.text_column={column}: expected text in every row of {path}")
    return rows


def _tokens(tokenizer, text: str, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    found = tokenizer(text, return_special_tokens_mask=True, verbose=False, **options)
    return torch.tensor(found["input_ids"]), torch.tensor(found["special_tokens_mask"], dtype=torch.bool)
