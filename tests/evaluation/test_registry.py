import re
import subprocess
import sys

import pytest

from qig.errors import EvaluationError
from qig.evaluation.registry import TASKS_FOLDER, check_tasks, load_tasks, own_tasks, task_manager


def test_each_task_file_is_named_after_its_task():
    assert own_tasks() == ["qig_digitgrid"]
    for path in TASKS_FOLDER.rglob("*.yaml"):
        assert re.search(r"^task: (\S+)$", path.read_text(), re.MULTILINE)[1] == path.stem


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (["qig_digitgird"], r"unknown task 'qig_digitgird' \(did you mean 'qig_digitgrid'\?\); choose from: qig_"),
        (["qig_digitgrid", "qig_digitgrid"], r"\['qig_digitgrid'\] are given more than once"),
        ([], r"got tasks \[\]; expected a list such as \['qig_digitgrid'\]"),
        ("qig_digitgrid", "got tasks 'qig_digitgrid'; expected a list"),
    ],
)
def test_mistakes_in_the_task_list(tasks, message):
    with pytest.raises(EvaluationError, match=message):
        check_tasks(tasks)


def test_own_tasks_are_checked_without_heavy_imports():
    code = (
        "import sys; import qig.evaluation.likelihood, qig.evaluation.plugin, qig.evaluation.statistics;"
        "from qig.evaluation.benchmark import check_tasks; check_tasks(['qig_digitgrid']);"
        "print([name for name in ('torch', 'transformers', 'datasets', 'lmms_eval') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Index:
    """Stands for lmms-eval's index of 2,000 tasks."""

    all_tasks = ("chartqa", "chartqa_lite", "mmmu_val", "vizwiz_vqa_val")


def test_foreign_names_are_looked_up_in_lmms_eval(monkeypatch):
    monkeypatch.setattr("qig.evaluation.registry.task_manager", lambda foreign: Index)
    check_tasks(["qig_digitgrid", "mmmu_val"])
    with pytest.raises(EvaluationError, match=r"'chartq' \(did you mean 'chartqa'\?\); choose from: chartqa, "):
        check_tasks(["chartq"])


def test_a_dataset_that_cannot_be_had_is_explained(monkeypatch):
    from tenacity import retry, stop_after_attempt

    @retry(stop=stop_after_attempt(2))
    def offline(*_):
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr("lmms_eval.tasks.get_task_dict", offline)
    with pytest.raises(EvaluationError, match=r"'qig_digitgrid' could not be loaded \(ConnectionError: no route"):
        load_tasks(["qig_digitgrid"])


def test_tasks_without_generated_answers_are_refused(monkeypatch):
    manager, loaded = load_tasks(["qig_digitgrid"])
    assert manager is task_manager(False)
    monkeypatch.setattr(loaded["qig_digitgrid"], "OUTPUT_TYPE", "loglikelihood")
    monkeypatch.setattr("lmms_eval.tasks.get_task_dict", lambda *_: loaded)
    with pytest.raises(EvaluationError, match="type 'loglikelihood'; expected 'generate_until'"):
        load_tasks(["qig_digitgrid"])
