"""The package's own source as part of an identity: what a stage computes with, and nothing else."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from qig.config.digest import digest
from qig.equalization import EQUALIZERS
from qig.rounding import ROUNDERS
from qig.sensitivity import ESTIMATORS

PACKAGE = Path(__file__).resolve().parents[1]
QUANTIZATION_CODE = (
    "blockwise", "calibrate.py", "data", "determinism.py", "models/*.py", "quantization", "quantized.py"
)  # fmt: skip
METHODS = {"sensitivity": ESTIMATORS, "equalization": EQUALIZERS, "rounding": ROUNDERS}
"""Folders of methods, of which a run has one each. Another one beside it, or in its table, changes nothing."""
# Of the models: what loads the 16-bit one.
EVALUATION_CODE = (
    "evaluation", "data/digitgrid", "data/encoding.py", "data/images.py", "data/python_docs.py",
    "data/rendering.py", "determinism.py", "models/*.py", "quantized.py",
)  # fmt: skip


@cache
def code_version(parts: tuple[str, ...]) -> str:
    """Hash of the Python and YAML sources under the named folders or patterns."""
    return _hash(_files(parts))


@cache
def quantization_code(**kinds: str) -> str:
    """Hash of the pass and of the methods that a run has.

    Args:
        kinds: of each folder of ``METHODS`` that the run has one of; "none" is nothing.
    """
    common = _files(QUANTIZATION_CODE)
    chosen = {_file(METHODS[group][kind].partition(":")[0]) for group, kind in kinds.items() if kind != "none"}
    reached, ahead = set(), chosen.union(*map(_methods_imported_by, common))
    while ahead:
        reached |= ahead
        ahead = set().union(*map(_methods_imported_by, ahead)) - reached
    return _hash(common | reached)


@cache  # once for all jobs of a sweep
def folder_content(folder: str) -> str:
    """Hash of all files below a folder, but for what Python compiles."""
    files = (file for file in Path(folder).rglob("*") if file.is_file() and file.suffix != ".pyc")
    return digest({str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(files)})


def _files(parts: Iterable[str]) -> set[Path]:
    return {
        file
        for part in parts
        for file in (PACKAGE.glob(part) if "*" in part or part.endswith(".py") else (PACKAGE / part).rglob("*"))
        if file.suffix in (".py", ".yaml")
    }


def _hash(files: Iterable[Path]) -> str:
    return digest({str(f.relative_to(PACKAGE)): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(files)})


def _methods_imported_by(file: Path) -> set[Path]:
    """Files in the folders of methods that a file imports; the tables of what there is are none of them."""
    text = file.read_bytes()
    if file.suffix != ".py" or not any(f"{PACKAGE.name}.{group}".encode() in text for group in METHODS):
        return set()
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    modules = {node.module for node in imports if node.module}
    modules |= {f"{node.module}.{name.name}" for node in imports for name in node.names}
    inside = tuple(f"{PACKAGE.name}.{group}." for group in METHODS)
    return {path for module in modules if module.startswith(inside) and (path := _file(module)).is_file()}


def _file(module: str) -> Path:
    return PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py")
