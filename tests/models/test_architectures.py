"""What tells families apart stands in the table, and nowhere else in the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import qig
from qig.errors import ModelError
from qig.models.architectures import ARCHITECTURES, architecture_of

SOURCE = Path(qig.__file__).parent
ALLOWED = (
    "models/architectures.py",  # the table
    "evaluation/protocols.py",  # the table of how lmms-eval's wrappers ask each family
    "report/patches.py",  # the table of which patch a vision token shows
    "models/tiny/",  # the embedded models, which are built from their classes
    "models/smol_vision/",  # a model built from a family's class around a pretrained one
    "models/internvl2/",  # the conversion of a format that has no class
    "export/wide.py",  # the random model on which speed is measured
)
EMBEDDED = re.compile(r"tiny_\w+|qwen-vl-utils|\binternvl2\b")  # names of a model and of two packages, not of families
FAMILY = re.compile(r"qwen|llava|llama|intern_?(vl|lm|vit)|idefics|smol_?(vlm|lm)|siglip|mistral|gemma|phi\d", re.I)


def families_named(source: str) -> list[str]:
    """Names, attributes, imports and texts of the code that name a family; comments and docstrings are no code."""
    tree = ast.parse(source)
    prose = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and ast.get_docstring(node)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            found.append(node.value)
        elif isinstance(node, ast.Name | ast.Attribute | ast.alias | ast.arg | ast.keyword):
            found += [getattr(node, field, None) for field in ("id", "attr", "name", "arg")]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append(node.name)
    return [text for text in found if text and FAMILY.search(EMBEDDED.sub("", text))]


def test_no_code_outside_the_table_names_a_family():
    files = {str(file.relative_to(SOURCE)): file.read_text() for file in sorted(SOURCE.rglob("*.py"))}
    places = {
        name: named
        for name, source in files.items()
        if not name.startswith(ALLOWED) and (named := families_named(source))
    }
    assert places == {}
    assert len(families_named(files["models/architectures.py"])) >= len(ARCHITECTURES)


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ('if config.model_type == "qwen2_vl": pass', 1),
        ("from transformers import LlavaOnevisionForConditionalGeneration", 1),
        ("isinstance(model, transformers.InternVLModel)", 1),
        ('type(model).__name__.startswith("SmolVLM")', 1),
        ("def _qwen_positions(x): ...", 1),
        ('"""As in Qwen2."""\nMODELS = ("tiny_qwen2_vl",)  # llava, too', 0),
    ],
)
def test_the_search_finds_what_names_a_family(code, count):
    assert len(families_named(code)) == count


def test_unknown_family_lists_those_with_a_row():
    with pytest.raises(ModelError, match=r"'qwen9_vl'.*qwen2_5_vl"):
        architecture_of("qwen9_vl")
