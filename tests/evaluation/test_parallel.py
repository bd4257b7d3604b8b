import json
import os
import shutil

import pytest
from accelerate import PartialState
from datasets import Dataset, DatasetDict
from PIL import Image
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from evaluation import evaluate_as_rank
from qig.config.schema import Evaluation, Model, Outliers, TextEvaluation
from qig.errors import DataError, EvaluationError
from qig.evaluation import chat_model, registry
from qig.evaluation.parallel import Job, launch, own_device
from qig.evaluation.ranks import Ranks
from qig.evaluation.registry import TASKS_FOLDER

YAML = """
task: qig_drawn
dataset_path: {folder}/data
dataset_kwargs: {{load_from_disk: true}}
test_split: val
output_type: generate_until
doc_to_visual: !function functions.visual
doc_to_text: question
doc_to_target: answer
generation_kwargs: {{max_new_tokens: 3}}
process_results: !function functions.judge
metric_list:
  - {{metric: drawn, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""
# As MMMU's parser does where it finds no option.
FUNCTIONS = """
import random

def visual(doc):
    return [doc["picture"].convert("RGB")]

def judge(doc, results):
    return {"drawn": random.random()}
"""


STANDALONE = {"min_nodes": 1, "max_nodes": 1, "nproc_per_node": 2, "rdzv_backend": "c10d",
              "rdzv_endpoint": "localhost:0", "max_restarts": 0}  # fmt: skip


def forked(**settings) -> LaunchConfig:
    """Processes as torchrun starts them, but without the half minute in which each of them would import all anew."""
    PartialState._reset_state()  # this process is none of theirs
    return LaunchConfig(**settings | {"start_method": "fork"})


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What a single process and each of two said, by the name of their file."""
    tasks, folder = tmp_path_factory.mktemp("tasks"), tmp_path_factory.mktemp("said")
    shutil.copytree(TASKS_FOLDER, tasks, dirs_exist_ok=True)
    rows = {
        "picture": [Image.new("RGB", (40 + 9 * i, 70 - 4 * i), (20 * i, 0, 99)) for i in range(9)],
        "question": ["what color is at r1c1 ?", "how many digits ?", "what digit is at r2c2 and r3c3 ?"] * 3,
        "answer": ["red", "2", "none"] * 3,
    }
    DatasetDict({"val": Dataset.from_dict(rows)}).save_to_disk(tasks / "data")
    (tasks / "functions.py").write_text(FUNCTIONS)
    (tasks / "qig_drawn.yaml").write_text(YAML.format(folder=tasks))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "TASKS_FOLDER", tasks)  # both are set there, and put back here
        patch.setattr(chat_model, "generate_answers", chat_model.generate_answers)
        evaluate_as_rank.main(tasks, folder)
        elastic_launch(forked(**STANDALONE), evaluate_as_rank.main)(tasks, folder)
    return {file.stem: json.loads(file.read_text()) for file in folder.iterdir()}


def test_two_processes_find_what_one_finds(found):
    alone = found["alone"]
    assert len(alone["samples"]) == 22 + 9
    assert len({sample["score"] for sample in alone["samples"]}) > 9 and all(s["nll"] > 0 for s in alone["samples"])
    for rank in ("0", "1"):
        assert found[rank]["samples"] == alone["samples"]
        assert found[rank]["metrics"] == alone["metrics"]


def test_each_answers_its_share_of_the_batches(found):
    whole, shares = found["alone"]["batches"], (found["0"]["batches"], found["1"]["batches"])
    assert len(whole) == 9
    assert shares == (whole[0::2], whole[1::2])


def test_all_fail_together(found):
    assert "qig_digitgrid' logs no number" in found["alone"]["error"]
    assert found["0"]["error"] == found["1"]["error"] == found["alone"]["error"]


def job(folder, **evaluation):
    chosen = {"tasks": ["qig_digitgrid"], "limit": 6, "batch_size": 2, "protocol": "plain", "nll": False, "seed": 1}
    chosen |= {"max_empty_share": 1.0, "max_unparsed_share": 1.0, "sharded": False, "include_path": None}
    chosen["text"] = TextEvaluation(None, 8, None, None, "test", "text")
    chosen |= evaluation
    model = Model("tiny", "embedded:tiny_internvl", "float32", Outliers(0.0, 0))
    return Job(model, None, None, Evaluation(**chosen), "cpu", 1, folder)


def test_processes_are_started_and_one_writes(tmp_path):
    assert launch(job(tmp_path), 2)["peak_host_bytes"] > 100e6  # with torch and the model; its launcher has neither
    assert sorted(file.name for file in tmp_path.iterdir()) == ["evaluation.json", "journal", "samples.jsonl"]
    assert len((tmp_path / "samples.jsonl").read_text().splitlines()) == 6
    assert json.loads((tmp_path / "evaluation.json").read_text())["metrics"]["qig_digitgrid"]["n"] == 6


def test_what_a_process_says_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.distributed.launcher.api.LaunchConfig", forked)
    said = r"^one of 2 processes failed: EvaluationError: .*did you mean 'qig_digitgrid'"
    with pytest.raises(EvaluationError, match=said):
        launch(job(tmp_path, tasks=["qig_digit_grid"]), 2)
    assert list(tmp_path.iterdir()) == []


def test_data_that_a_process_cannot_have_is_an_error_of_its_own(tmp_path, monkeypatch):
    """It stops a run at its first baseline; answers that cannot be trusted do not."""
    monkeypatch.setattr("torch.distributed.launcher.api.LaunchConfig", forked)
    monkeypatch.setattr("qig.evaluation.datasets._cached", lambda dataset: False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = r"^one of 2 processes failed: DataError: task 'mmmu_val' needs the dataset \S+/MMMU"
    with pytest.raises(DataError, match=said):
        launch(job(tmp_path, tasks=["mmmu_val"]), 2)


def test_one_process_is_the_ordinary_case(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ranks = Ranks.of_environment()
    assert (ranks.rank, ranks.size, ranks.is_main) == (0, 1, True)
    assert ranks.spread([3, 1, 2], lambda item: item * 2) == [6, 2, 4]
    assert ranks.once(lambda: 5) == ranks.in_turn(lambda: 5) == 5


def test_other_processes_are_hidden_from_lmms_eval_and_seen_again(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ZeroDivisionError), Ranks.each_alone():
        assert "WORLD_SIZE" not in os.environ
        1 / 0  # noqa: B018
    assert os.environ["WORLD_SIZE"] == "2"


@pytest.mark.parametrize(
    ("local", "configured", "device"),
    [(None, "cuda:1", "cuda:1"), ("3", "cuda", "cuda:3"), ("3", "cuda:0", "cuda:3"), ("3", "cpu", "cpu")],
)
def test_each_process_takes_a_device_of_its_own(monkeypatch, local, configured, device):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local is not None:
        monkeypatch.setenv("LOCAL_RANK", local)
    assert str(own_device(configured)) == device
