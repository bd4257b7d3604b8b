"""A run and what it is compared with: in which order, and what one's failure does to the other."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from qig.errors import ConfigError, DataError, EvaluationError, UnscoredError
from qig.runner import Prepared


@pytest.fixture
def prepared(compose, tmp_path, monkeypatch):
    """A run of QIG whose stages are made of nothing; ``made``: the methods in the order that they were."""
    found = Prepared(compose("model=tiny_internvl", "method=qig", "tracking=none", f"store={tmp_path / 'store'}"))
    found.made = []

    def record(_stages, config):
        found.made.append(config.method)
        return f"run of {config.method}", False

    monkeypatch.setattr("qig.stages.Stages.record", record)
    return found


def test_baselines_come_first(prepared):
    outcome = prepared.run()
    assert prepared.made == ["none", "rtn", "qig"] and outcome.run == "run of qig"
    assert outcome.baselines == {"16 bit": "run of none", "rtn": "run of rtn"}


@pytest.mark.parametrize(
    ("words", "beside"),
    [
        (("method=rtn",), ["16 bit"]),
        (("method=none", "quant=fp16"), []),
        (("method=qig", "quant=fp16"), []),
        (("method=awq",), ["16 bit", "rtn"]),
    ],
    ids=" ".join,
)
def test_no_run_is_a_baseline_of_its_own(compose, prepared, tmp_path, words, beside):
    outcome = Prepared(compose("model=tiny_internvl", *words, "tracking=none", f"store={tmp_path / 'store'}")).run()
    assert list(outcome.baselines) == beside and outcome.run not in outcome.baselines.values()


def test_nobody_waits_for_a_baseline_that_another_process_is_at(prepared, monkeypatch):
    monkeypatch.setattr("qig.stages.Stages.is_made_elsewhere", lambda _, config: config.method == "none")
    outcome = prepared.run()
    assert prepared.made == ["rtn", "qig", "none"]
    assert list(outcome.baselines) == ["16 bit", "rtn"]


def test_who_is_at_a_run_is_known_by_its_lock(stages, config):
    from qig.store.locks import Lock

    assert not stages.is_made_elsewhere(config)
    with Lock(stages.store.root / "locks", f"runs-{stages.keys(config).run}"):
        assert stages.is_made_elsewhere(config)


def test_a_baseline_that_fails_does_not_keep_the_run_from_being_made(prepared, monkeypatch, caplog):
    record = type(prepared._stages).record

    def failing(stages, config):
        if config.method == "rtn":
            raise EvaluationError("30 of 30 answers are empty")
        return record(stages, config)

    monkeypatch.setattr("qig.stages.Stages.record", failing)
    outcome = prepared.run()
    assert outcome.run == "run of qig" and outcome.baselines == {"16 bit": "run of none"}
    assert "rtn: 30 of 30 answers are empty" in caplog.text


@pytest.mark.parametrize(
    "error",
    [
        DataError("task 'chartqa' needs the dataset lmms-lab/ChartQA"),
        UnscoredError("task 'mme' logs no number for every sample"),
    ],
)
def test_questions_that_cannot_be_had_or_scored_are_told_before_anything_is_quantized(prepared, monkeypatch, error):
    """The run would be asked the same ones, after hours of calibration."""
    made = []

    def unusable(_, config):
        made.append(config.method)
        raise error

    monkeypatch.setattr("qig.stages.Stages.record", unusable)
    with pytest.raises(type(error), match=str(error)):
        prepared.run()
    assert made == ["none"]


@pytest.mark.parametrize("words", [("method=mbq",), ("method=qig", "sensitivity.granularity=modality")])
def test_vision_tokens_are_not_weighed_where_no_sample_has_any(compose, tmp_path, words):
    """All tokens would weigh the same, under the name of a method that weighs them."""
    (tmp_path / "texts.jsonl").write_text('{"text": "one two three four five six seven eight"}\n' * 4)
    prepared = Prepared(compose(*words, "model=tiny_internvl", "calibration=pile", "calibration.samples=4",
                                f"calibration.path={tmp_path / 'texts.jsonl'}", f"store={tmp_path / 'store'}"))
    with pytest.raises(ConfigError, match=r"weighs vision tokens .* no sample of calibration set 'pile' has an image"):
        prepared.run()
    assert not list(tmp_path.glob("store/quantized/*/quantization.json"))


def test_unusable_samples_are_told_before_any_baseline_is_made(compose, tmp_path, monkeypatch):
    (tmp_path / "coco").mkdir()
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
    records = [{"id": n, "image": f"coco/{n}.jpg", "conversations": turns} for n in range(4)]
    (tmp_path / "captions.json").write_text(json.dumps(records))
    for n in range(4):
        Image.new("RGB", (32, 32)).save(tmp_path / "coco" / f"{n}.jpg")
    made = []
    monkeypatch.setattr("qig.stages.Stages.record", lambda _, config: made.append(config.method) or ("id", False))
    prepared = Prepared(compose("method=awq", "model=tiny_internvl", "calibration=sharegpt4v_coco",
                                "calibration.samples=4", f"calibration.path={tmp_path / 'captions.json'}",
                                f"calibration.image_folder={tmp_path}", f"store={tmp_path / 'store'}"))
    prepared.run()
    assert made == ["none", "rtn", "awq"]
    for n in range(2):
        (tmp_path / "coco" / f"{n}.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match="2 of 4 samples of calibration set 'sharegpt' cannot be used"):
        prepared.run()
    assert made == ["none", "rtn", "awq"]
