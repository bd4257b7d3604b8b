"""lmms-eval's tasks by name, from its YAML files, without importing it (its own index takes 15 s and more).

``beside``: a folder of the user's with more of them (``evaluation.include_path``).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qig.errors import EvaluationError


def folder() -> Path:
    """Where lmms-eval keeps its tasks.

    Raises:
        EvaluationError: it is not installed.
    """
    spec = find_spec("lmms_eval")
    if spec is None or not spec.submodule_search_locations:
        raise EvaluationError("lmms-eval is not installed; pip install lmms-eval")
    return Path(spec.submodule_search_locations[0]) / "tasks"


@cache  # some 0.2 s, for thousands of files
def find(name: str, beside: str | None = None) -> Path | None:
    """The YAML file that defines the task, group or tag of this name; for a tag, one of its tasks' files."""
    mentioning = [file for file in _files(beside) if name in file.read_text()]
    return _defined(mentioning).get(name) or all_names(beside).get(name)


@cache  # a tag is looked for in thousands of files
def tasks_of(name: str, beside: str | None = None) -> dict[str, dict[str, Any]]:
    """The configurations of the tasks behind a name, by task: its own, a group's members', those that carry a tag."""
    file = find(name, beside)
    config = read(file) if file else {}
    task = config.get("task")
    if task == name:
        return {name: config}
    if isinstance(task, list):
        inner = [one if isinstance(one, str) else one.get("task") for one in task]
        return {key: value for one in inner if one not in (None, name) for key, value in tasks_of(one, beside).items()}
    tagged = [read(file) for file in _files(beside) if name in file.read_text()]
    return {one["task"]: one for one in tagged if isinstance(one.get("task"), str) and name in _listed(one.get("tag"))}


@cache
def all_names(beside: str | None = None) -> dict[str, Path]:
    """Every task, group and tag, with a file that defines it; takes about 2 s."""
    return _defined(_files(beside))


def names_in(folder: str) -> set[str]:
    """The tasks, groups and tags that the YAML files below a folder define."""
    return set(_defined(sorted(Path(folder).rglob("*.yaml"))))


@cache
def read(file: Path) -> dict[str, Any]:
    """A task's configuration with what it includes; references to functions are None.

    Raises:
        EvaluationError: the file is no YAML.
    """
    import yaml

    try:
        config = yaml.load(file.read_text(), _loader())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{file} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        return {}
    included = config.pop("include", None) or []
    merged: dict[str, Any] = {}
    for path in reversed([included] if isinstance(included, str) else included):
        merged |= read(Path(path) if Path(path).is_file() else file.parent / path)
    return merged | config


@cache
def _loader() -> type:
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        pass

    Loader.add_multi_constructor("!", lambda loader, tag, node: None)
    return Loader


def _files(beside: str | None) -> list[Path]:
    return [file for place in (folder(), beside) if place is not None for file in sorted(Path(place).rglob("*.yaml"))]


def _defined(files: list[Path]) -> dict[str, Path]:
    return {name: file for file in files for name in _names(read(file))}


def _names(config: dict[str, Any]) -> Iterator[str]:
    # As lmms-eval's TaskManager reads a file: a group lists its tasks, a task may carry tags.
    task = config.get("task")
    if "class" in config or isinstance(task, str):
        yield str(task)
    if "class" in config or task is None:
        return
    for key in ("tag", "group") if isinstance(task, str) else ("group",):
        yield from _listed(config.get(key))


def _listed(names: str | list[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else names or []
