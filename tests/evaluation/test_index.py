import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import qig
from qig.errors import DataError, EvaluationError
from qig.evaluation import index
from qig.evaluation.datasets import check_datasets
from qig.evaluation.registry import check_tasks, load_tasks

PRESETS = ["vizwiz_vqa_val", "mmmu_val", "chartqa", "ai2d", "scienceqa_img", "seedbench", "ocrbench", "textvqa_val"]


@pytest.fixture
def tasks_folder(tmp_path, monkeypatch):
    """A stand-in for lmms-eval's folder of tasks."""
    monkeypatch.setattr(index, "folder", lambda: tmp_path)
    for cached in (index.find, index.all_names, index.tasks_of):
        cached.cache_clear()
    yield tmp_path
    for cached in (index.find, index.all_names, index.tasks_of):
        cached.cache_clear()


def test_tasks_tags_groups_and_classes(tasks_folder):
    written = {
        "a/one.yaml": "task: one\ntag:\n  - first\n  - second\ninclude: shared\ndoc_to_text: !function utils.text",
        "a/shared": "dataset_path: owner/data\ngeneration_kwargs: {max_new_tokens: 3}",
        "a/two.yaml": 'task: "two"\ngroup: third\ndataset_path: mine\ninclude: shared',
        "b/many.yaml": "group: many\ntask:\n  - one\n  - two",
        "b/own.yaml": "task: own\nclass: !function utils.Own",
        "b/template.yaml": "dataset_path: owner/data",
    }
    for name, text in written.items():
        (tasks_folder / name).parent.mkdir(exist_ok=True)
        (tasks_folder / name).write_text(text)
    assert set(index.all_names()) == {"one", "first", "second", "two", "third", "many", "own"}
    assert index.read(index.find("one"))["dataset_path"] == "owner/data"
    assert index.read(index.find("two"))["dataset_path"] == "mine"
    assert {task: config["dataset_path"] for task, config in index.tasks_of("many").items()} == {
        "one": "owner/data", "two": "mine"
    }  # fmt: skip
    assert list(index.tasks_of("second")) == ["one"] == list(index.tasks_of("one"))
    assert index.tasks_of("on") == {}
    assert index.find("third").name == "two.yaml" and index.find("on") is None


def test_every_task_that_lmms_eval_has():
    """Its own index takes 15 s; the tasks' names are the same by a plain reading of the files."""
    expected = set()
    for file in index.folder().rglob("*.yaml"):
        task = next((line for line in file.read_text().splitlines() if line.startswith("task:")), "task:")
        name = yaml.safe_load(task)["task"]
        expected |= {name} if isinstance(name, str) else set()
    names = set(index.all_names())
    assert expected <= names and len(expected) > 1000
    assert set(PRESETS) | {"mmmu", "public_eval_gpt5_family"} <= names


def test_foreign_names_are_looked_up_and_near_ones_shown():
    check_tasks(["qig_digitgrid", *PRESETS])
    with pytest.raises(EvaluationError, match=r"'chartq' \(did you mean 'chartqa'\?\); choose from: chartqa, "):
        check_tasks(["chartq"])


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_a_missing_dataset_is_told_where_it_cannot_be_fetched(empty_cache, monkeypatch):
    check_datasets(["mmmu_val"])  # a network may bring it
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    said = r"'mmmu_val' needs the dataset (\S+/MMMU), 900 questions, .*HF_DATASETS_OFFLINE=1 .* --repo-type dataset \1 "
    with pytest.raises(DataError, match=said):
        check_datasets(["qig_digitgrid", "mmmu_val"])


@pytest.mark.parametrize(
    "kept", ["hub/datasets--lmms-lab-encoder--MMMU/snapshots/1", "datasets/lmms-lab-encoder___mmmu/1"]
)
def test_a_cached_dataset_is_found(empty_cache, monkeypatch, kept):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (empty_cache / kept).mkdir(parents=True)
    check_datasets(["mmmu_val"])


def test_a_folder_that_is_not_there(tasks_folder):
    file = tasks_folder / "local.yaml"
    file.write_text("task: local\ndataset_path: /no/such/data\ndataset_kwargs: {load_from_disk: true}")
    with pytest.raises(DataError, match="'local' reads its data from /no/such/data, which does not exist"):
        check_datasets(["local"])


@pytest.mark.parametrize("task", ["mmmu_val", "vizwiz_vqa_val"])
def test_only_the_folder_of_a_task_is_indexed_and_the_wrapper_words_it(task, monkeypatch):
    from qig.evaluation.protocols import WRAPPERS

    managers = []

    def loaded(names, manager, kind):
        managers.append((manager, kind))
        return {}

    monkeypatch.setattr("lmms_eval.tasks.get_task_dict", loaded)
    load_tasks([task, "qig_digitgrid"], WRAPPERS["qwen2_vl"])
    manager, kind = managers[0]
    assert (manager.model_name, kind) == ("qwen2_vl", "simple")
    assert {task, "qig_digitgrid"} <= set(manager.all_tasks) and len(manager.all_tasks) < 40


def test_an_unreadable_task_is_no_task(tasks_folder):
    (tasks_folder / "list.yaml").write_text("- task: one")
    assert index.all_names() == {}


def test_lmms_eval_is_imported_only_where_it_evaluates(tmp_path):
    """Help, and a configuration with its task names checked, come without it."""
    code = (
        "import sys, atexit; sys.argv = ['qig', *sys.argv[1:]];"
        "atexit.register(lambda: print('imported', [n for n in sys.modules if n.split('.')[0] == 'lmms_eval']));"
        "from qig.__main__ import main; main()"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(qig.__file__).parents[1])}
    for arguments in (["--help"], ["evaluation=paper", "evaluation.tasks=[chartqaa]", "tracking=none"]):
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert "imported []" in done.stdout, done.stderr
    assert "did you mean 'chartqa'" in done.stderr


@pytest.mark.parametrize("content", [b"task: [one", b"task: \x00", b"task: \xff"])
def test_a_file_that_is_no_yaml_is_named(tmp_path, content):
    (tmp_path / "broken.yaml").write_bytes(content)
    with pytest.raises(EvaluationError, match=r"broken\.yaml is no YAML: "):
        index.names_in(str(tmp_path))
