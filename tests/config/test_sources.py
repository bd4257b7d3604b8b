"""Which of the package's files are part of a quantized model's identity: those that it was computed with."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from qig.config import sources
from qig.sensitivity import ESTIMATORS

CHOICES = [
    {"equalization": "none", "rounding": "nearest"},
    {"equalization": "none", "rounding": "gptaq", "sensitivity": "attention"},
    {"equalization": "learned", "rounding": "clipped", "sensitivity": "modality_gradient"},
    {"equalization": "grid", "rounding": "nearest", "sensitivity": "qig"},
]
IMPORTED = """
import json, os, sys
from pkgutil import resolve_name
import qig.calibrate, qig.quantized
from qig.config.sources import METHODS
inside = tuple(f"qig.{group}." for group in METHODS)
for chosen in json.loads(sys.argv[1]):
    if os.fork() == 0:  # what one imports the others have not
        for group, kind in chosen.items():
            if kind != "none":
                resolve_name(METHODS[group][kind])
        print(json.dumps([name for name in sys.modules if name.startswith(inside)]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture
def package(tmp_path):
    """A copy of the package's sources that may be changed; forgets what was known of them."""
    folder = tmp_path / "qig"
    shutil.copytree(sources.PACKAGE, folder, ignore=shutil.ignore_patterns("checkpoints", "__pycache__"))
    with patch.object(sources, "PACKAGE", folder):
        yield folder
    sources.quantization_code.cache_clear()


def codes() -> list[str]:
    sources.quantization_code.cache_clear()
    return [sources.quantization_code(**kinds) for kinds in CHOICES]


def change(file) -> list[bool]:
    """Of which of the choices the identity changes with a file."""
    before = codes()
    with file.open("a") as stream:
        stream.write("\n# changed\n")
    return [one != other for one, other in zip(before, codes(), strict=True)]


@pytest.fixture(scope="module")
def imported() -> list[list[str]]:
    """For each of the choices the modules of methods that Python imports."""
    command = [sys.executable, "-c", IMPORTED, json.dumps(CHOICES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("number", range(len(CHOICES)), ids=["+".join(kinds.values()) for kinds in CHOICES])
def test_what_python_imports_for_a_run_is_in_its_identity(imported, number):
    kinds, modules = CHOICES[number], {name.replace(".", "/") + ".py" for name in imported[number]}
    hashed: set[Path] = set()
    sources.quantization_code.cache_clear()
    with patch.object(sources, "_hash", hashed.update):
        sources.quantization_code(**kinds)
    sources.quantization_code.cache_clear()
    names = {str(file.relative_to(sources.PACKAGE.parent)) for file in hashed}
    assert modules and modules == {name for name in names if name.split("/")[1] in sources.METHODS}


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("blockwise/run.py", [True, True, True, True]),
        ("sensitivity/weights.py", [True, True, True, True]),
        ("sensitivity/integral.py", [False, False, False, True]),
        ("sensitivity/attention.py", [False, True, False, False]),
        ("equalization/error.py", [False, False, True, True]),
        ("rounding/gptq.py", [False, True, False, False]),
        ("report/cells.py", [False, False, False, False]),
    ],
)
def test_a_file_counts_where_it_computes(package, file, changes):
    assert change(package / file) == changes


def test_a_method_more_changes_no_other(package):
    before = codes()
    (package / "sensitivity" / "mine.py").write_text("class Mine:\n    pass\n")
    table = package / "sensitivity" / "__init__.py"
    line = '    "mine": "qig.sensitivity.mine:Mine",'
    table.write_text(table.read_text().replace("ESTIMATORS = {", f"ESTIMATORS = {{\n{line}"))
    assert codes() == before
    with patch.dict(sources.METHODS, sensitivity={**ESTIMATORS, "mine": "qig.sensitivity.mine:Mine"}):
        first = sources.quantization_code(sensitivity="mine")
        assert change(package / "sensitivity" / "mine.py") == [False] * len(CHOICES)
        assert sources.quantization_code(sensitivity="mine") != first


# Messages, devices, clocks, files, schemas; of a quantized model the key holds what quantizes by itself, and of a text
# what was read.
DECIDE_NOTHING_IN_16_BITS = {
    "blockwise/artefact.py", "blockwise/timing.py", "data/samples.py", "data/sets/base.py", "data/sets/tables.py",
    "data/tokens.py", "devices.py", "environment.py", "errors.py", "finite.py",
    "models/internvl2/__init__.py", "models/packaged/__init__.py", "models/tiny/__init__.py",
    "quantization/grid.py", "quantization/setting.py",
}  # fmt: skip


def test_what_evaluation_imports_is_in_its_identity_or_decides_nothing():
    listed = {file for file in sources._files(sources.EVALUATION_CODE) if file.suffix == ".py"}
    found = set()
    for file in listed:
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("qig."):
                for name in (node.module, *(f"{node.module}.{one.name}" for one in node.names)):
                    module = sources.PACKAGE.parent.joinpath(*name.split("."))
                    found |= {path for path in (module.with_suffix(".py"), module / "__init__.py") if path.is_file()}
    assert len(found) > 20
    beyond = {path.relative_to(sources.PACKAGE).as_posix() for path in found - listed}
    assert {name for name in beyond if not name.startswith(("config/", "store/"))} == DECIDE_NOTHING_IN_16_BITS


@pytest.mark.parametrize("part", [*sources.EVALUATION_CODE, *sources.QUANTIZATION_CODE])
def test_every_part_that_is_listed_is_there_and_counts(part):
    without = tuple(one for one in sources.EVALUATION_CODE if one != part)
    assert sources._files([part])
    if part in sources.EVALUATION_CODE:
        assert sources.code_version(without) != sources.code_version(sources.EVALUATION_CODE)
