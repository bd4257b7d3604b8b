"""docs/METHODS.md is what the registries give, and has a row for everything that can be chosen."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from importlib import import_module
from pkgutil import iter_modules, resolve_name

import pytest

from qig.about import About
from qig.config import conf_dir
from qig.equalization import EQUALIZERS
from qig.report.methods import DESTINATION, main, page
from qig.rounding import ROUNDERS
from qig.sensitivity import ESTIMATORS

REGISTRIES = {"sensitivity": ESTIMATORS, "equalization": EQUALIZERS, "rounding": ROUNDERS}
MEMBERS = [(group, name, member) for group, registry in REGISTRIES.items() for name, member in registry.items()]


def rows(text: str) -> list[list[str]]:
    cells = [line.strip("|").replace(r"\|", "\0").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip().replace("\0", "|") for cell in row] for row in cells]


def test_the_committed_page_is_not_stale():
    assert DESTINATION.read_text() == page(), "run python -m qig.report.methods"


def test_command(tmp_path):
    main(["--output", str(tmp_path / "new" / "page.md")])
    assert (tmp_path / "new" / "page.md").read_text() == page()


@pytest.mark.parametrize(("group", "name", "member"), MEMBERS, ids=[f"{g}/{n}" for g, n, _ in MEMBERS])
def test_everything_has_a_row_of_its_own(group, name, member):
    member = resolve_name(member)
    about = member.about
    assert isinstance(about, About) and "about" in vars(member)  # not inherited from what it extends
    found = [row for row in rows(page()) if row[0] == name and len(row) == 5]
    assert found == [[name, f"`{about.formula}`", about.cost, about.needs, about.source]]
    assert all(dataclasses.astuple(about))
    assert (conf_dir() / group / f"{name}.yaml").exists()


@pytest.mark.parametrize("group", REGISTRIES)
def test_everything_that_can_be_chosen_has_a_row(group):
    """Profiles (``qig_release``) are another configuration of the same class."""
    kinds = {
        line.removeprefix("kind: ").strip()
        for file in (conf_dir() / group).glob("*.yaml")
        for line in file.read_text().splitlines()
        if line.startswith("kind: ")
    }
    assert kinds <= {"none", *REGISTRIES[group]}
    assert {name for g, name, _ in MEMBERS if g == group} <= kinds


def test_presets_and_their_choices(compose):
    found = {row[0]: row[1:4] for row in rows(page()) if len(row) == 6}
    for file in (conf_dir() / "method").glob("*.yaml"):
        config = compose(f"method={file.stem}")
        chosen = found[file.stem]
        assert [c.removesuffix("_release") for c in chosen] == [
            config.sensitivity.kind, config.equalization.kind, config.rounding.kind,
        ]  # fmt: skip
    row = next(row for row in rows(page()) if row[0] == "mbq_release")
    assert row[4] == "`equalization.loss=mae`, `equalization.stream=${by_setting:exact,both}`"


@pytest.mark.parametrize("group", REGISTRIES)
def test_no_function_of_a_package_is_hidden_by_a_module_of_its_name(group):
    """Python sets a module as its package's attribute whenever it is imported first, over a function of that name."""
    package = import_module(f"qig.{group}")
    modules = {module.name for module in iter_modules(package.__path__)}
    nodes = ast.walk(ast.parse(inspect.getsource(package)))
    functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    assert modules and functions and not functions & modules
