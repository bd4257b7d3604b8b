"""The presets' tasks from end to end on made-up documents: every answer is the one that lmms-eval's wrapper gives."""

from importlib.metadata import version

import pytest
from datasets import Dataset, DatasetDict, Image, Sequence
from transformers import AutoProcessor

from evaluation.wrapped import picture, wrapper_class
from qig.evaluation.benchmark import evaluate
from qig.evaluation.containment import contained
from qig.models.tiny import checkpoint_dir

OPTIONS = {"image": [picture(48, 48), picture(90, 60), picture(30, 70)]}
VQA = {**OPTIONS, "question_id": ["1", "2", "3"], "question": ["what color ?", "how many digits ?", "is a 3 there ?"]}
MMMU = {
    "id": [f"validation_Art_{i}" for i in range(3)],
    "question": ["what is <image 1> and <image 2> ?", "see <image 1>", "how many digits ? <image 1>"],
    "question_type": ["multiple-choice", "multiple-choice", "open"],
    "options": ["['red', 'blue']", "['<image 1>', 'none']", "[]"],
    "answer": ["A", "B", "2"],
    "image_1": OPTIONS["image"],
    "image_2": OPTIONS["image"][::-1],
}
DOCS = {
    "vizwiz_vqa_val": ("val", {**VQA, "answers": [["red"] * 10] * 3}),
    "mmmu_val": ("validation", MMMU),
    "chartqa": ("test", {**OPTIONS, "question": VQA["question"], "type": ["human_test", "augmented_test", "human_test"],
                         "answer": ["red", "2", "yes"]}),
    "ai2d": ("test", {**OPTIONS, "question": VQA["question"], "options": [["red", "blue"]] * 3,
                      "answer": ["0", "1", "0"]}),
    "scienceqa_img": ("test", {**OPTIONS, "question": VQA["question"], "hint": ["", "a hint", ""],
                               "choices": [["red", "blue"]] * 3, "answer": [0, 1, 1]}),
    "seedbench": ("test", {"image": [[image] for image in OPTIONS["image"]], "question": VQA["question"],
                           "choice_a": ["a"] * 3, "choice_b": ["b"] * 3, "choice_c": ["c"] * 3, "choice_d": ["d"] * 3,
                           "answer": ["A", "B", "C"], "data_type": ["image", "image", "video"],
                           "question_id": ["1", "2", "3"]}),
    "ocrbench": ("test", {**OPTIONS, "question": VQA["question"], "answer": [["red"], ["2"], ["yes"]],
                          "dataset": ["x"] * 3, "question_type": ["Regular Text Recognition"] * 3}),
    "textvqa_val": ("validation", {**VQA, "answers": [["red"] * 10] * 3, "ocr_tokens": [["a"]] * 3}),
}  # fmt: skip
FAMILIES = {
    "tiny_llava_onevision": "chat.llava_hf.LlavaHf",
    "tiny_qwen2_vl": "simple.qwen2_vl.Qwen2_VL",
    "tiny_internvl": "chat.internvl_hf.InternVLHf",
}


@pytest.fixture
def made_up(monkeypatch):
    """Tasks find made-up documents where they would download theirs."""
    from lmms_eval.api.task import ConfigurableTask

    def download(self, dataset_kwargs=None):
        split, columns = DOCS[self.config.task]
        dataset = Dataset.from_dict(columns)
        pictures = [
            name for name, kind in dataset.features.items() if isinstance(kind, Image | Sequence) and "mage" in name
        ]
        self.dataset = DatasetDict({split: dataset})
        self.dataset_no_image = DatasetDict({split: dataset.remove_columns(pictures)})

    monkeypatch.setattr(ConfigurableTask, "download", download)
    monkeypatch.setattr("qig.evaluation.benchmark.check_datasets", lambda *_: None)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_answer_is_the_wrappers(made_up, compose, name, tmp_path, monkeypatch):
    from argparse import Namespace

    from lmms_eval import evaluator

    from qig.evaluation.protocols import WRAPPERS
    from qig.evaluation.registry import load_tasks

    monkeypatch.chdir(tmp_path)
    folder = checkpoint_dir(name)
    theirs = wrapper_class(FAMILIES[name])(pretrained=str(folder), device="cpu", device_map="cpu")
    monkeypatch.setattr(theirs, "clean", lambda: None)
    generate = theirs.model.generate  # of either side; that both ask for as much is told in test_wrappers

    def briefly(**given):
        return generate(**given | {"max_new_tokens": min(given["max_new_tokens"], 4)})

    monkeypatch.setattr(theirs.model, "generate", briefly)
    tasks = sorted({*compose("evaluation=paper").evaluation.tasks, *compose("evaluation=mbq").evaluation.tasks})
    assert tasks == sorted(DOCS)
    protocol = WRAPPERS[theirs.model.config.model_type]
    with contained():
        manager, loaded = load_tasks(tasks, protocol)
        expected = evaluator.simple_evaluate(
            model=theirs,
            tasks=list(loaded.values()),
            task_manager=manager,
            bootstrap_iters=0,
            process_docs_parallel=1,
            cli_args=Namespace(output_path=str(tmp_path), process_with_media=False),
        )
    options = {"limit": None, "batch_size": 1, "seed": 0, "nll": True}
    processor = AutoProcessor.from_pretrained(folder)
    found = evaluate(theirs.model, processor, tasks=tasks, protocol="wrapper", **options)
    for task in tasks:
        said = [sample["answer"] for sample in found.samples if sample["task"] == task]
        assert said == [sample["resps"][0][0] for sample in expected["samples"][task]], task
        assert len(said) == 3
        main = found.metrics[task]["metric"]
        reported = expected["results"][task]
        value = next(reported[key] for key in reported if key.partition(",")[0] == main)
        counted = 1000 if task == "ocrbench" else 3
        if task != "mmmu_val":  # it draws at random
            assert found.metrics[task]["accuracy"] * 3 == pytest.approx(value * counted, abs=1e-4)
    assert len({sample["answer"] for sample in found.samples}) > 3
    assert found.versions["lmms-eval"] == version("lmms-eval")
    assert found.protocol["wrapper"] == protocol.wrapper
    assert set(found.metrics["chartqa"]["sub_scores"]) == {"relaxed_human_split", "relaxed_augmented_split"}
    assert found.metrics["mmmu_val"]["unparsed_share"] is not None
