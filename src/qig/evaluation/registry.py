"""Which tasks there are, and how they are loaded. Our own are known without importing lmms-eval."""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path

from qig.errors import EvaluationError, choices

from .containment import contained

TASKS_FOLDER = Path(__file__).parent / "tasks"


def own_tasks() -> list[str]:
    """Names of this project's tasks: every YAML file in the tasks folder is named after its task."""
    return sorted(path.stem for path in TASKS_FOLDER.rglob("*.yaml"))


def check_tasks(tasks: list[str]) -> None:
    """Refuse an empty list, a name given twice, or a task that neither this project nor lmms-eval has.

    Instant for this project's tasks; the first foreign name costs lmms-eval's index of tasks, about 20 s.
    """
    if isinstance(tasks, str) or not tasks:
        raise EvaluationError(f"got tasks {tasks!r}; expected a list such as {own_tasks()}")
    twice = sorted({task for task in tasks if tasks.count(task) > 1})
    if twice:
        raise EvaluationError(f"tasks {twice} are given more than once")
    known = own_tasks()
    if any(not task.startswith("qig_") for task in tasks):
        with contained():
            known.extend(task_manager(True).all_tasks)
    for task in tasks:
        if task not in known:
            # lmms-eval has 2,000 names, so only the near ones are shown.
            near = difflib.get_close_matches(task, known, n=8)
            raise EvaluationError(choices(task, {*own_tasks(), *near}, "task"))


@cache
def task_manager(foreign: bool, /):
    """lmms-eval's index of this project's tasks and, if ``foreign``, of its own."""
    from lmms_eval.tasks import TaskManager

    return TaskManager(include_path=str(TASKS_FOLDER), include_defaults=foreign, model_name="qig")


def load_tasks(tasks: list[str]) -> tuple[object, dict[str, object]]:
    """The index that was used and the loaded tasks by name; a group is replaced by its members.

    Raises:
        EvaluationError: a dataset cannot be had, or a task asks for something else than generated answers.
    """
    from lmms_eval.evaluator_utils import get_task_list
    from lmms_eval.tasks import get_task_dict
    from tenacity import RetryError

    manager = task_manager(not set(tasks) <= set(own_tasks()))
    loaded = {}
    for name in tasks:
        try:
            members = get_task_list(get_task_dict([name], manager, "chat"))
        except RetryError as error:
            cause = error.last_attempt.exception()
            raise EvaluationError(
                f"the dataset of task {name!r} could not be loaded ({type(cause).__name__}: {cause}); "
                "without a network it must already be in the Hugging Face cache (HF_HOME)"
            ) from cause
        loaded.update({member.task_name: member.task for member in members})
    for name, task in loaded.items():
        if task.OUTPUT_TYPE != "generate_until":
            raise EvaluationError(f"task {name!r} is of type {task.OUTPUT_TYPE!r}; expected 'generate_until'")
    return manager, loaded
