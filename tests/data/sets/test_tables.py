"""Data sets by column names, InfoVQA's form, and plain text, from every kind of local file; and what is not there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from qig.data.calibration import calibration_data, samples_of
from qig.data.images import decode
from qig.data.samples import ImagePolicy, PlainText
from qig.data.sets import check_available, content_hash, read
from qig.errors import DataError


@pytest.fixture
def rows(make_png):
    """Six rows of InfoVQA's columns."""
    return [
        {"image": make_png(n), "question": f"what is {n} ?", "answers": [f"number {n}", "", f"{n}"], "questionId": n}
        for n in range(6)
    ]


@pytest.fixture
def parquet(tmp_path, rows) -> Path:
    """As InfoVQA's parquet files are: the image a struct of bytes and path."""
    stored = [row | {"image": {"bytes": row["image"], "path": None}} for row in rows]
    pq.write_table(pa.Table.from_pylist(stored), tmp_path / "infovqa.parquet")
    return tmp_path / "infovqa.parquet"


def shown(sample):
    return [tuple("image" if not isinstance(p, str) else p for p in turn.content) for turn in sample.turns]


def test_columns_become_turns(parquet, make_hf):
    config = make_hf(parquet, 6, image_position="after", id_column="questionId")
    check_available(config)
    samples = {sample.id: sample for sample in read(config).samples}
    assert set(samples) == {f"{n}#{n}" for n in range(6)}
    assert shown(samples["3#3"]) == [("what is 3 ?", "image"), ("number 3 | 3",)]
    assert decode(samples["3#3"].images[0]).size == (48, 43)
    first = make_hf(parquet, 6, answers="first", prompt_column=None, prompt="Read.")
    assert shown({s.id: s for s in read(first).samples}["#3"]) == [("image", "Read."), ("number 3",)]


def test_a_question_that_is_not_there_is_skipped_by_name(tmp_path, make_hf):
    """Where a column has the questions; a caption needs none."""
    rows = [{"question": text, "answers": ["yes"]} for text in ("what?", "", None, "  ")]
    datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "rows.parquet"))
    config = make_hf(tmp_path / "rows.parquet", 4, image_columns=[])
    corpus = read(config)
    assert [sample.id for sample in corpus.samples] == ["#0"] and set(corpus.skipped) == {"#1", "#2", "#3"}
    assert corpus.skipped["#1"] == "has no text in column 'question'"


def test_selection_is_seeded(parquet, make_hf):
    order = np.random.default_rng(5).permutation(6)[:4]
    assert [s.id for s in samples_of(make_hf(parquet, seed=5))] == [f"#{n}" for n in order]
    with pytest.raises(DataError, match="has 6 samples, but 7 are asked for"):
        samples_of(make_hf(parquet, 7))


def kinds_of_storage(tmp_path: Path, rows) -> dict[str, Path]:
    table = datasets.Dataset.from_list([{k: v for k, v in row.items() if k != "image"} for row in rows])
    with_images = table.add_column("image", [{"bytes": row["image"], "path": None} for row in rows])
    saved = with_images.cast_column("image", datasets.Image())
    saved.save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict({"train": saved}).save_to_disk(str(tmp_path / "splits"))
    (tmp_path / "shards").mkdir()
    saved.select(range(3)).to_parquet(str(tmp_path / "shards" / "train-00000-of-00002.parquet"))
    saved.select(range(3, 6)).to_parquet(str(tmp_path / "shards" / "train-00001-of-00002.parquet"))
    folder = tmp_path / "imagefolder"
    folder.mkdir()
    lines = []
    for n, row in enumerate(rows):
        (folder / f"{n}.png").write_bytes(row["image"])
        lines.append({"file_name": f"{n}.png", "question": row["question"], "answers": row["answers"]})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with_paths = [{"image": f"{n}.png", **{k: row[k] for k in ("question", "answers")}} for n, row in enumerate(rows)]
    (tmp_path / "paths.jsonl").write_text("\n".join(map(json.dumps, with_paths)))
    names = ("saved", "splits", "shards", "imagefolder", "paths.jsonl")
    return {name: tmp_path / name for name in names}


@pytest.mark.parametrize("storage", ["saved", "splits", "shards", "imagefolder", "paths.jsonl"])
def test_every_kind_of_storage(tmp_path, rows, make_hf, storage):
    path = kinds_of_storage(tmp_path, rows)[storage]
    folder = str(tmp_path / "imagefolder") if storage == "paths.jsonl" else None
    config = make_hf(path, 6, image_folder=folder)
    check_available(config)
    samples = read(config).samples
    assert sorted(decode(s.images[0]).size[1] for s in samples) == [40, 41, 42, 43, 44, 45]
    for sample in samples:
        number = decode(sample.images[0]).size[1] - 40
        assert shown(sample) == [("image", f"what is {number} ?"), (f"number {number} | {number}",)]


def test_images_behind_a_link_are_read_where_that_is_said(tmp_path, rows, make_hf):
    path = kinds_of_storage(tmp_path, rows)["paths.jsonl"]
    (tmp_path / "linked").mkdir()
    for image in (tmp_path / "imagefolder").rglob("*.png"):
        link = tmp_path / "linked" / image.relative_to(tmp_path / "imagefolder")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(image)
    config = make_hf(path, 6, image_folder=str(tmp_path / "linked"), max_skipped_share=1.0)
    assert len(read(config).skipped) == 6
    assert len(read(replace(config, follow_links=True)).samples) == 6


def test_several_images_and_none(tmp_path, make_hf, make_png):
    stored = [
        {"images": [{"bytes": make_png(n), "path": None} for n in range(count)], "question": "hi", "answers": "yes"}
        for count in (2, 0, 3)
    ]
    pq.write_table(pa.Table.from_pylist(stored), tmp_path / "several.parquet")
    samples = read(make_hf(tmp_path / "several.parquet", 3, image_columns=["images"])).samples
    heights = [[decode(picture).size[1] for picture in sample.images] for sample in samples]
    assert sorted(heights) == [[], [40, 41], [40, 41, 42]]  # in the order in which the cell has them
    text_only = read(make_hf(tmp_path / "several.parquet", 3, image_columns=[])).samples
    assert all(sample.images == () for sample in text_only)


@pytest.mark.parametrize(("images", "max_pixels"), [("pad", None), ("native", None), ("native", 300)])
def test_pictures_are_changed_where_that_is_said(parquet, make_hf, images, max_pixels):
    samples = read(make_hf(parquet, 6, images=images, max_pixels=max_pixels)).samples
    assert [sample.policy for sample in samples] == [ImagePolicy(images == "pad", max_pixels)] * 6


def test_rows_that_cannot_be_used(tmp_path, make_hf, make_png, processor_of, no_model):
    good = {"image": {"bytes": make_png(0), "path": None}, "question": "hi", "answers": ["yes"]}
    stored = [
        good,
        good | {"answers": ["", None]},
        good | {"image": {"bytes": None, "path": "/etc/hostname"}},
        good | {"image": {"bytes": None, "path": "../a.png"}},
        good | {"image": {"bytes": b"no image", "path": None}},
    ]
    pq.write_table(pa.Table.from_pylist(stored), tmp_path / "bad.parquet")
    processor = processor_of("tiny_qwen2_vl")
    config = make_hf(tmp_path / "bad.parquet", 5, image_folder=str(tmp_path), max_skipped_share=0.8)
    data = calibration_data(config, processor, no_model, {processor.image_token_id})
    assert data.record()["samples"] == ["#0"]
    reasons = {"#1": "has no answer", "#2": "leaves its folder", "#3": "leaves its folder", "#4": "cannot be read"}
    assert data.skipped.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert reason in data.skipped[name]
    nowhere = read(make_hf(tmp_path / "bad.parquet", 5)).skipped
    assert "set calibration.image_folder" in nowhere["#3"]


def test_what_is_missing_is_told_at_once(tmp_path, parquet, make_hf, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def refused(match: str, path=parquet, **values) -> None:
        with pytest.raises(DataError, match=match):
            check_available(make_hf(path, **values))

    near = r"unknown column 'anwsers' \(did you mean 'answers'\?\); choose from: answers, image, question"
    refused(near, answer_column="anwsers")
    refused("unknown column 'picture'", image_columns=["picture"])
    refused("'/nowhere/a.parquet' does not exist; expected a file, a directory, or a hub id", "/nowhere/a.parquet")
    refused("'a.parquet' does not exist", "a.parquet")
    refused("without a network it must already be in the Hugging Face cache", "owner/name")
    refused("image_folder='/nowhere' is no directory", image_folder="/nowhere")
    (tmp_path / "a.xlsx").write_text("")
    refused(r"unknown kind of file '\.xlsx'; choose from: ", tmp_path / "a.xlsx")
    (tmp_path / "torn.parquet").write_bytes(parquet.read_bytes()[:200])
    refused(r"torn\.parquet' cannot be loaded", tmp_path / "torn.parquet")
    (tmp_path / "empty").mkdir()
    refused("empty' cannot be loaded", tmp_path / "empty")


def test_a_hub_without_network_is_asked_once(make_pile, monkeypatch):
    """No retries: one look whether the hub answers, then the local cache alone."""
    calls = []

    def unreachable(*_, **__):
        calls.append(datasets.config.HF_HUB_OFFLINE)
        raise OSError("no network")

    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unreachable)
    with pytest.raises(DataError, match=r"cannot be loaded.*without a network"):
        check_available(make_pile("owner/name"))
    assert calls == [False] and datasets.config.HF_HUB_OFFLINE is False


def test_splits_are_named(tmp_path, rows, make_hf):
    table = datasets.Dataset.from_list([{"question": "q", "answers": "a"}])
    datasets.DatasetDict({"validation": table, "test": table}).save_to_disk(str(tmp_path / "d"))
    check_available(make_hf(tmp_path / "d", split="test", image_columns=[]))
    with pytest.raises(DataError, match=r"unknown split 'valid' .*'validation'\?\); choose from: test, "):
        check_available(make_hf(tmp_path / "d", split="valid", image_columns=[]))


def test_hash_sees_content_and_not_where_it_lies(tmp_path, parquet, rows, make_hf):
    base = content_hash(make_hf(parquet))
    assert content_hash(make_hf(kinds_of_storage(tmp_path, rows)["saved"])) == base
    assert content_hash(make_hf(parquet, seed=1)) != base
    assert content_hash(make_hf(parquet, answers="first")) != base
    rows[int(read(make_hf(parquet)).samples[0].id[1:])]["question"] = "another ?"
    stored = [row | {"image": {"bytes": row["image"], "path": None}} for row in rows]
    pq.write_table(pa.Table.from_pylist(stored), tmp_path / "changed.parquet")
    assert content_hash(make_hf(tmp_path / "changed.parquet")) != base


TEXTS = [f"the image number {n} shows red and blue and green ." for n in range(5)]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.parquet", "a.txt", "folder"])
def test_plain_text_from_every_kind_of_file(tmp_path, make_pile, processor_of, no_model, name):
    path = tmp_path / name
    table = pa.table({"text": TEXTS, "meta": ["x"] * 5})
    if name == "folder":
        path.mkdir()
        pq.write_table(table, path / "part.parquet")
    elif name == "a.parquet":
        pq.write_table(table, path)
    elif name == "a.txt":
        path.write_text("\n".join(TEXTS))
    else:
        rows = table.to_pylist()
        path.write_text(json.dumps(rows) if name == "a.json" else "\n".join(map(json.dumps, rows)))
    config = make_pile(path, 5)
    check_available(config)
    assert sorted(s.segments[0].text for s in read(config).samples) == TEXTS
    assert all(isinstance(s.segments[0], PlainText) for s in read(config).samples)
    processor = processor_of("tiny_llava_onevision")
    (batch,) = calibration_data(config, processor, no_model, {processor.image_token_id}).batches
    assert batch.kinds.shape == (5, 6) and bool((batch.labels == batch.inputs["input_ids"]).all())


def test_pile_says_what_it_lacks(tmp_path, make_pile):
    (tmp_path / "a.jsonl").write_text('{"txt": "a"}\n{"txt": null}\n')
    with pytest.raises(DataError, match=r"unknown column 'text' \(did you mean 'txt'\?\); choose from: txt"):
        check_available(make_pile(tmp_path / "a.jsonl"))
    assert read(make_pile(tmp_path / "a.jsonl", 2, text_column="txt")).skipped == {"#1": "has no text"}


SCALAR = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=6)
ROW = st.dictionaries(st.sampled_from(["text", "answers", "question", "image"]), SCALAR | st.lists(SCALAR, max_size=2))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROW | SCALAR, max_size=3), name=st.sampled_from(["fuzz.json", "fuzz.jsonl"]))
def test_any_json_gives_samples_or_a_data_error(tmp_path, make_pile, make_hf, processor_of, no_model, rows, name):
    path = tmp_path / name
    path.write_text(json.dumps(rows) if name == "fuzz.json" else "\n".join(map(json.dumps, rows)))
    processor = processor_of("tiny_internvl")
    for config in (make_pile(path, 1), make_hf(path, 1)):
        for ask in (check_available, content_hash, lambda c: calibration_data(c, processor, no_model, {3})):
            try:
                ask(replace(config, max_skipped_share=0.9))
            except DataError:
                continue


def test_reading_decodes_nothing(parquet, make_hf, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("an image was opened")

    monkeypatch.setattr(Image, "open", refuse)
    assert len(read(make_hf(parquet)).samples) == 4 and content_hash(make_hf(parquet))
