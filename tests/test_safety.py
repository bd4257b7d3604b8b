"""Rules that hold for all of the package's source: nothing is unpickled, evaluated, or run that comes from outside."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import qig

ROOT = Path(qig.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
MODULES = {"pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
CALLS = {"eval", "exec", "compile", "__import__"}  # as names; model.eval() and re.compile() are methods
METHODS = {
    "torch.load", "joblib.load", "yaml.unsafe_load", "yaml.full_load", "pandas.read_pickle", "pd.read_pickle",
    "np.load", "numpy.load", "os.system", "os.popen",
}  # fmt: skip


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def broken(tree: ast.AST):
    """Line and text of everything in the source that the rules forbid."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, a.name) for a in node.names if a.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield node.lineno, node.module
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            keywords = {k.arg: k.value for k in node.keywords}
            if name in CALLS | METHODS:
                yield node.lineno, name
            if name == "yaml.load" and not safe_loader(node):
                yield node.lineno, name
            for flag in ("shell", "trust_remote_code", "allow_pickle"):
                if isinstance(keywords.get(flag), ast.Constant) and keywords[flag].value:
                    yield node.lineno, flag


def safe_loader(call: ast.Call) -> bool:
    """The task index has a loader of its own, made from the safe one; see ``test_the_task_index_reads_safely``."""
    loader = call.args[1] if len(call.args) == 2 else None
    loader = loader.func if isinstance(loader, ast.Call) else loader
    return loader is not None and dotted(loader) in ("_loader", "yaml.SafeLoader", "yaml.CSafeLoader")


def test_nothing_is_unpickled_or_evaluated():
    found = {str(source): list(broken(ast.parse(source.read_text()))) for source in SOURCES}
    assert len(found) > 200 and not {source: lines for source, lines in found.items() if lines}


@pytest.mark.parametrize(
    "text",
    ["import pickle", "from joblib import load", "torch.load(f)", "eval(x)", "exec(x)", "yaml.load(f)",
     "yaml.load(f, yaml.Loader)", "np.load(f)", "f(shell=True)", "A.from_pretrained(d, trust_remote_code=True)"],
)  # fmt: skip
def test_the_rules_can_be_broken(text):
    assert list(broken(ast.parse(text)))


def test_every_checkpoint_is_opened_without_its_code():
    """Whatever opens a checkpoint says so: transformers would ask on the terminal, or run it. A LoRA has no code."""
    opened = re.compile(r"\b(?!PeftModel\.)\w+\.from_pretrained\(((?:[^()]|\([^()]*\))*)\)")
    for source in SOURCES:
        if "packaged" in source.parts or source.name in ("loading_notes.py", "train.py", "tokenizer.py"):
            continue  # from a package index, a README's text, own checkpoints, a class by its name
        for arguments in opened.findall(source.read_text()):
            assert "**FROM_FILES" in arguments or "trust_remote_code=False" in arguments, f"{source}: {arguments}"


def test_the_task_index_reads_safely():
    import yaml

    from qig.evaluation.index import _loader

    assert issubclass(_loader(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    for text in ("!!python/object/apply:os.getcwd []", "!!python/name:os.system", "!function utils.f"):
        try:
            assert yaml.load(text, _loader()) is None
        except yaml.YAMLError:
            continue
