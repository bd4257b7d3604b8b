import re
import subprocess
import sys

import pytest

from qig.errors import DataError, EvaluationError, UnscoredError
from qig.evaluation.protocols import PLAIN
from qig.evaluation.registry import TASKS_FOLDER, check_tasks, load_tasks, own_tasks


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


@pytest.mark.parametrize(
    ("task", "named"),
    [("mmbench_en_dev", "mmbench_en_dev"), ("mmbench_en", "mmbench_en_dev"), ("textvqa", "textvqa_test"),
     ("docvqa_test", "docvqa_test"), ("llava_in_the_wild", "llava_in_the_wild")],
)  # fmt: skip
def test_tasks_that_are_judged_elsewhere_are_refused_at_once(task, named):
    with pytest.raises(UnscoredError, match=rf"task '{named}' has no score .*(gpt_eval|submission)"):
        check_tasks([task])


@pytest.mark.parametrize("task", ["mmlu", "hellaswag", "arc_easy", "seedbench_ppl"])
def test_tasks_without_generated_answers_are_refused_at_once(task):
    with pytest.raises(UnscoredError, match="is of type 'multiple_choice'; expected 'generate_until'"):
        check_tasks([task])


def test_tasks_are_checked_without_heavy_imports():
    code = (
        "import sys; import qig.evaluation.likelihood, qig.evaluation.plugin, qig.report.statistics.significance;"
        "from qig.evaluation.benchmark import check_tasks; check_tasks(['qig_digitgrid', 'mmmu_val']);"
        "print([name for name in ('torch', 'transformers', 'datasets', 'lmms_eval') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("task", "needs"),
    [
        ("mmmu_val", r"needs the dataset (\S+/MMMU), .* hf download --repo-type dataset \1 "),
        ("qig_digitgrid", "does not say which dataset it needs; it could not be fetched .*no route to the hub.$"),
    ],
)
def test_a_dataset_that_cannot_be_had_is_explained(monkeypatch, task, needs):
    from tenacity import retry, stop_after_attempt

    @retry(stop=stop_after_attempt(2))
    def offline(*_):
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr("lmms_eval.tasks.get_task_dict", offline)
    with pytest.raises(DataError, match=f"^task '{task}' {needs}") as error:
        load_tasks([task], PLAIN)
    assert "could not be fetched (ConnectionError: no route to the hub)" in str(error.value)


def test_tasks_without_generated_answers_are_refused(monkeypatch):
    _, loaded = load_tasks(["qig_digitgrid"], PLAIN)
    monkeypatch.setattr(loaded["qig_digitgrid"], "OUTPUT_TYPE", "loglikelihood")
    monkeypatch.setattr("lmms_eval.tasks.get_task_dict", lambda *_: loaded)
    with pytest.raises(EvaluationError, match="type 'loglikelihood'; expected 'generate_until'"):
        load_tasks(["qig_digitgrid"], PLAIN)
