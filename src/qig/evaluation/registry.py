"""Which tasks there are, and how they are loaded. All names are known without importing lmms-eval."""

from __future__ import annotations

import difflib
from pathlib import Path

from qig.errors import DataError, EvaluationError, UnscoredError, choices

from . import index
from .datasets import dataset_of, missing
from .protocols import Protocol
from .scores import check_judged_here

TASKS_FOLDER = Path(__file__).parent / "tasks"
GENERATED = "generate_until"
"""lmms-eval's type of tasks whose answers are generated, and what it takes a task for that names none."""


def own_tasks() -> list[str]:
    """Names of this project's tasks: every YAML file in the tasks folder is named after its task."""
    return sorted(path.stem for path in TASKS_FOLDER.rglob("*.yaml"))


def check_tasks(tasks: list[str], beside: str | None = None) -> None:
    """Refuse an empty list, a name given twice, a task that neither this project, lmms-eval nor the folder ``beside``
    has, one that asks for no generated answers or whose answers only somebody else can judge; and a folder whose tasks
    go by names of lmms-eval's.

    Instant for this project's tasks; a known name of lmms-eval costs a fraction of a second, an unknown one about 2 s.
    """
    if isinstance(tasks, str) or not tasks:
        raise EvaluationError(f"got tasks {tasks!r}; expected a list such as {own_tasks()}")
    twice = sorted({task for task in tasks if tasks.count(task) > 1})
    if twice:
        raise EvaluationError(f"tasks {twice} are given more than once")
    own, users = own_tasks(), set() if beside is None else _tasks_in(beside)
    for task in tasks:
        if task in own:
            continue
        if task not in users and (task.startswith("qig_") or index.find(task) is None):
            # lmms-eval has 2,000 names, so only the near ones are shown.
            near = difflib.get_close_matches(task.lower(), [] if task.startswith("qig_") else index.all_names(), n=8)
            others = "" if near else " (and lmms-eval's: python -m lmms_eval --tasks list)"
            raise EvaluationError(choices(task, {*own, *users, *near}, "task") + others)
        for name, config in index.tasks_of(task, beside).items():
            _check_generated(name, config.get("output_type", GENERATED))
            check_judged_here(name, [metric.get("metric") for metric in config.get("metric_list") or []])


def _tasks_in(folder: str) -> set[str]:
    """The names that the user's folder defines.

    Raises:
        EvaluationError: it is not there, defines none, or one that this project or lmms-eval has, too.
    """
    place = f"evaluation.include_path={folder}"
    if not Path(folder).is_dir():
        raise EvaluationError(f"{place}: no such folder")
    names = index.names_in(folder)
    if not names:
        raise EvaluationError(f"{place}: expected YAML files of tasks in lmms-eval's form in it")
    taken = names & {*own_tasks(), *index.all_names()}
    if taken:
        raise EvaluationError(f"{place}: name them otherwise, for there are others: {', '.join(sorted(taken))}")
    return names


def check_no_pictures(tasks: list[str]) -> None:
    """Refuse, for a language model, this project's tasks, which all ask about pictures.

    Raises:
        EvaluationError: names them.
    """
    asked = [task for task in tasks if task in own_tasks()]
    if asked:
        raise EvaluationError(
            f"{', '.join(asked)} asks about pictures, and the model is a language model: choose evaluation=python_docs"
        )


def load_tasks(
    tasks: list[str], protocol: Protocol, beside: str | None = None
) -> tuple[object, dict[str, object]]:
    """The index that was used and the loaded tasks by name; a group is replaced by its members.

    Raises:
        DataError: a dataset cannot be had.
        UnscoredError: a task asks for something else than generated answers.
    """
    from lmms_eval.evaluator_utils import get_task_list
    from lmms_eval.tasks import get_task_dict
    from tenacity import RetryError

    manager = _task_manager(tasks, protocol, beside)
    loaded = {}
    for name in tasks:
        try:
            members = get_task_list(get_task_dict([name], manager, protocol.requests))
        except RetryError as error:
            cause = error.last_attempt.exception()
            why = f"it could not be fetched ({type(cause).__name__}: {cause})"
            unnamed = f"task {name!r} does not say which dataset it needs; {why}"
            dataset = dataset_of(name, beside)
            raise DataError(missing(name, dataset, why) if dataset else unnamed) from cause
        loaded.update({member.task_name: member.task for member in members})
    for name, task in loaded.items():
        _check_generated(name, task.OUTPUT_TYPE)
    return manager, loaded


def _check_generated(task: str, output_type: str) -> None:
    if output_type != GENERATED:
        raise UnscoredError(
            f"task {task!r} is of type {output_type!r}; expected {GENERATED!r}, a task whose answers are generated"
        )


def _task_manager(tasks: list[str], protocol: Protocol, beside: str | None):
    """lmms-eval's index, of the folders of these tasks only; all of it (15 s) where a group or tag is asked for."""
    from lmms_eval.tasks import TaskManager

    own = own_tasks()
    files = {task: index.find(task, beside) for task in tasks if task not in own}
    single = all(index.read(file).get("task") == task for task, file in files.items())
    folders = {str(file.parent) for file in files.values()} if single else {beside} - {None}
    return TaskManager(
        include_path=[str(TASKS_FOLDER), *sorted(folders)], include_defaults=not single, model_name=protocol.wrapper
    )
