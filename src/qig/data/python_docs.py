"""English text that comes with every Python: pydoc's topics and the docstrings of the standard library.

Two parts, of different documents (a topic, or a module), for calibration and for evaluation. Python's documentation
repeats itself, so a paragraph that an evaluation document has is taken out of the calibration documents. The text is
that of the running Python: runs record its hash.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import sys
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from qig.errors import DataError

CALIBRATION, EVALUATION = "calibration", "evaluation"
LENGTH = 2000  # characters that a passage has at least: about 500 tokens


@dataclass(frozen=True)
class Passage:
    """Neighbouring paragraphs of a document; ``name`` is unique."""

    name: str
    document: str
    text: str


@cache
def passages(part: str) -> tuple[Passage, ...]:
    """All passages of a part (``calibration`` or ``evaluation``), in a fixed order without a meaning.

    What is left at the end of a document, shorter than a passage, is dropped.

    Raises:
        DataError: this Python came without its documentation.
    """
    found = []
    for document, paragraphs in _part(part).items():
        gathered: list[str] = []
        for paragraph in paragraphs:
            gathered.append(paragraph)
            text = "\n\n".join(gathered)
            if len(text) >= LENGTH:
                found.append(Passage(f"{document}#{len(found)}", document, text))
                gathered = []
    return tuple(sorted(found, key=lambda passage: _hash(passage.name)))


@cache
def content_hash(part: str) -> str:
    """SHA-256 over names and texts of the passages, in hexadecimal digits."""
    return _hash(repr([(passage.name, passage.text) for passage in passages(part)]))


def part_of(document: str) -> str:
    """The part that a document belongs to, by its name alone: the same for every version of Python."""
    return EVALUATION if int(_hash(document), 16) % 2 else CALIBRATION


def _part(part: str) -> dict[str, list[str]]:
    """Documents of a part as paragraphs, without those of the calibration part that the other one has as well."""
    split = {
        name: [paragraph.strip("\n") for paragraph in text.split("\n\n") if paragraph.strip()]
        for name, text in _documents().items()
    }
    chosen = {name: paragraphs for name, paragraphs in split.items() if part_of(name) == part}
    if part == EVALUATION:
        return chosen
    held = {_words(paragraph) for name in split.keys() - chosen.keys() for paragraph in split[name]}
    return {name: [text for text in paragraphs if _words(text) not in held] for name, paragraphs in chosen.items()}


@cache
def _documents() -> dict[str, str]:
    """``topics/NAME`` and ``modules/NAME`` to text."""
    library = Path(sysconfig.get_path("stdlib"))
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
        modules = {
            f"modules/{name}": _docstrings(library / f"{name}.py")
            for name in sorted(sys.stdlib_module_names)
            if not name.startswith("_") and (library / f"{name}.py").is_file()
        }
    except (ImportError, OSError, SyntaxError) as error:
        reason = "install the whole standard library"
        raise DataError(f"this Python has no documentation to read ({error}); {reason}") from error
    return {f"topics/{name}": topics[name] for name in sorted(topics)} | modules


def _docstrings(file: Path) -> str:
    """The docstrings of a module, its classes and its functions, in the order of the source."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(file.read_bytes())):
        text = ast.get_docstring(node) if isinstance(node, documented) else None
        if text:
            found.append((getattr(node, "lineno", 0), text))
    return "\n\n".join(text for _, text in sorted(found))


def _words(text: str) -> str:
    return " ".join(text.split())


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
