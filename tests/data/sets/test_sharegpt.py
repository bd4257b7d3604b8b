"""ShareGPT4V's records: the coco filter, seeded selection, images in order, and every mistake by name."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qig.data.calibration import calibration_data, samples_of
from qig.data.images import decode
from qig.data.samples import ImagePolicy
from qig.data.sets import check_available, content_hash, read
from qig.data.sets.json_records import records_of
from qig.errors import DataError


def test_only_coco_is_chosen_and_ids_name_record_and_position(coco, make_record):
    records = [make_record(n, "coco/train2017" if n % 2 else "sam/images") for n in range(10)]
    for name in ("captions.json", "captions.jsonl"):
        config = coco.config(coco.records(records, name), samples=5)
        check_available(config)
        ids = [sample.id for sample in read(config).samples]
        assert sorted(ids) == [f"{n:012d}#{n}" for n in (1, 3, 5, 7, 9)]
    every = coco.config(coco.records(records), samples=10, image_prefix=None)
    assert len(read(every).samples) == 10


def test_order_is_numpys_shuffle_of_the_filtered_records(coco, ten):
    shuffled = [f"{n:012d}#{n}" for n in range(10)]
    np.random.default_rng(42).shuffle(shuffled)  # as MBQ's code orders the records
    assert [s.id for s in samples_of(coco.config(ten, 10, seed=42))] == shuffled
    assert [s.id for s in samples_of(coco.config(ten, 3, seed=42))] == shuffled[:3]
    assert [s.id for s in samples_of(coco.config(ten, 3, seed=43))] != shuffled[:3]


def test_turns_and_images_in_their_order(coco):
    for number in (1, 2, 3):
        coco.image(number)
    paths = [f"coco/train2017/{n:012d}.jpg" for n in (3, 1, 2)]
    conversation = [
        {"from": "system", "value": "be brief"},
        {"from": "human", "value": "one <image> two\n<image>\nthree"},
        {"from": "gpt", "value": " red "},
        {"from": "human", "value": "<image>"},
        {"from": "gpt", "value": "blue"},
    ]
    config = coco.config(coco.records([{"id": 7, "image": paths, "conversations": conversation}]), samples=1)
    (sample,) = read(config).samples
    shown = [
        (turn.role, [part if isinstance(part, str) else decode(part).getpixel((0, 0))[0] for part in turn.content])
        for turn in sample.turns
    ]
    (first, second, third) = (n for n in (3, 1, 2))
    assert shown[0] == ("system", ["be brief"]) and shown[2] == ("assistant", ["red"])
    assert [part for part in shown[1][1] if isinstance(part, str)] == ["one", "two", "three"]
    near = [round(part) for role, parts in shown for part in parts if not isinstance(part, str)]
    assert np.allclose(near, [first, second, third], atol=1)  # JPEG
    assert sample.id == "7#0"


def test_an_image_without_a_mark_stands_first(coco, make_record):
    coco.image(1)
    unmarked = make_record(1)
    unmarked["conversations"][0]["value"] = "describe the image ."
    (sample,) = read(coco.config(coco.records([unmarked]), samples=1)).samples
    assert [type(part) is str for part in sample.turns[0].content] == [False, True]


BROKEN = {
    "escape": ({"image": "coco/../../secret.jpg"}, "leaves its folder"),
    "absolute": ({"image": "/coco/a.jpg"}, None),  # does not pass the filter
    "no answer": ({"conversations": [{"from": "human", "value": "<image> hi"}]}, "has no answer"),
    "empty answer": (
        {"conversations": [{"from": "human", "value": "<image> hi"}, {"from": "gpt", "value": " \n"}]},
        "has no answer",
    ),
    "empty turn": (
        {"conversations": [{"from": "human", "value": "<image>"}, {"from": "human", "value": ""}]},
        "turn 2 is empty",
    ),
    "too many marks": (
        {"conversations": [{"from": "human", "value": "<image><image>"}, {"from": "gpt", "value": "a"}]},
        "has 1 images, but 2 <image>",
    ),
    "no speaker": ({"conversations": [{"value": "hi"}]}, "without 'from' and 'value'"),
    "unknown speaker": ({"conversations": [{"from": "humam", "value": "hi"}]}, "did you mean 'human'"),
    "no conversation": ({"conversations": None}, "no record with a list of conversations"),
}


@pytest.mark.parametrize("mistake", BROKEN)
def test_records_that_cannot_be_used_are_skipped_by_name(coco, ten, make_record, mistake):
    change, reason = BROKEN[mistake]
    path = coco.records([*(make_record(n) for n in range(3)), make_record(3) | change])
    corpus = read(coco.config(path, samples=4 if reason else 3))
    assert sorted(s.id for s in corpus.samples) == [f"{n:012d}#{n}" for n in range(3)]
    if reason:
        assert list(corpus.skipped) == [f"{3:012d}#3"]
        assert reason in corpus.skipped[f"{3:012d}#3"]


def test_escapes_are_refused_without_the_filter_too(coco, make_record):
    for path in ("/etc/hostname", "../outside.jpg"):
        records = coco.records([make_record(0) | {"image": path}])
        corpus = read(coco.config(records, samples=1, image_prefix=None))
        assert "leaves its folder" in next(iter(corpus.skipped.values()))


def test_unreadable_images_are_skipped_up_to_the_share(coco, ten, processor_of, no_model, caplog):
    coco.image(4).unlink()
    coco.image(7).write_bytes(b"no image")
    processor, config = processor_of("tiny_qwen2_vl"), coco.config(ten, samples=10, max_skipped_share=0.2)
    data = calibration_data(config, processor, no_model, {processor.image_token_id})
    assert set(data.skipped) == {f"{4:012d}#4", f"{7:012d}#7"}
    recorded = data.record()
    assert recorded["skipped"] == data.skipped and len(recorded["sha256"]) == 64
    assert recorded["samples"] == [s.id for s in samples_of(config) if s.id not in data.skipped]
    (line,) = [entry.getMessage() for entry in caplog.records if entry.name.startswith("qig")]
    assert line.startswith("2 of 10 samples") and f"{4:012d}#4" in line and "does not exist" in line
    json.dumps(recorded)
    strict = replace(config, max_skipped_share=0.19)
    with pytest.raises(DataError, match=r"2 of 10 samples .*#[47].*max_skipped_share=0\.19"):
        calibration_data(strict, processor, no_model, {processor.image_token_id})


def test_a_broken_line_is_named_by_its_number(tmp_path):
    (tmp_path / "lines.jsonl").write_text('{"id": 1}\n\n{"id": 2\n')
    with pytest.raises(DataError, match=r"cannot be read: ValueError: line 3, column 9: Expecting ',' delimiter"):
        records_of(str(tmp_path / "lines.jsonl"), "calibration.path")


def test_what_is_missing_is_told_at_once(coco, ten, make_record, tmp_path):
    def refused(match: str, **values) -> None:
        with pytest.raises(DataError, match=match):
            check_available(coco.config(**{"path": ten} | values))

    refused(r"calibration\.path='/nowhere/captions\.json' cannot be read: FileNotFound", path="/nowhere/captions.json")
    refused(r"expected a file that ends in \.json or \.jsonl", path=str(tmp_path))
    refused(r"image_folder='/nowhere' is no directory", image_folder="/nowhere")
    refused(r"has no folder 'coco/'", image_folder=str(tmp_path / "data" / "coco"))
    refused(r"no record with image paths that begin with 'vg/'.*null for all", image_prefix="vg/")
    broken = coco.records([], "broken.json")
    for text in ("{}", "[{", "7", "\x00", "[" * 100_000):
        (coco.root / "broken.json").write_text(text)
        refused(r"broken\.json' cannot be read", path=broken)
    with pytest.raises(DataError, match=r"has 10 samples, but 11 are asked for; set calibration\.samples lower"):
        samples_of(coco.config(ten, samples=11))


def test_images_behind_a_link_are_read_where_that_is_said(coco, ten, tmp_path):
    config = coco.config(ten, samples=9)
    base = content_hash(config)
    (coco.root / "coco").rename(tmp_path / "elsewhere")
    (coco.root / "coco").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="leaves its folder by a symbolic link; the set's follow_links=true"):
        check_available(config)
    assert all("symbolic link" in reason for reason in read(config).skipped.values())
    linked = replace(config, follow_links=True)
    check_available(linked)
    assert content_hash(linked) == base


def test_hash_sees_content_and_not_where_it_lies(coco, ten, make_record, tmp_path):
    config = coco.config(ten, samples=9)
    base = content_hash(config)
    assert content_hash(config) == base
    assert content_hash(coco.config(ten, samples=9, seed=1)) != base
    assert content_hash(coco.config(ten, samples=9, images="pad")) != base
    coco.root.rename(tmp_path / "moved")
    moved = replace(config, path=str(tmp_path / "moved" / "captions.json"), image_folder=str(tmp_path / "moved"))
    assert content_hash(moved) == base
    chosen = {sample.images[0].name for sample in read(moved).samples}
    images = tmp_path / "moved" / "coco" / "train2017"
    (left_out,) = (path for path in images.iterdir() if path.name not in chosen)
    left_out.write_bytes(b"another")
    assert content_hash(moved) == base
    (images / min(chosen)).write_bytes(b"another")
    assert content_hash(moved) != base


def test_hash_sees_who_says_a_text(coco):
    """What is an answer and what is a question decides which tokens are learned."""
    hashes = set()
    for speakers in ("human gpt human gpt", "human human gpt gpt", "system human gpt gpt"):
        turns = [{"from": speaker, "value": text} for speaker, text in zip(speakers.split(), "abcd", strict=True)]
        path = coco.records([{"id": 1, "conversations": turns}], f"{len(hashes)}.json")
        config = coco.config(path, samples=1, image_prefix=None)
        assert len(read(config).samples) == 1
        hashes.add(content_hash(config))
    assert len(hashes) == 3


@pytest.mark.parametrize(("images", "max_pixels"), [("pad", None), ("native", None), ("native", 300)])
def test_pictures_are_changed_where_that_is_said(coco, ten, images, max_pixels):
    samples = read(coco.config(ten, images=images, max_pixels=max_pixels)).samples
    assert {sample.policy for sample in samples} == {ImagePolicy(images == "pad", max_pixels)}


def test_hash_sees_what_is_done_to_pictures(coco, ten):
    said = ({}, {"images": "pad"}, {"max_pixels": 300}, {"max_pixels": 301})
    assert len({content_hash(coco.config(ten, **values)) for values in said}) == 4


def test_hash_sees_a_changed_text(coco, ten, make_record):
    config = coco.config(ten, samples=10)
    base = content_hash(config)
    coco.records([make_record(n, answer="another answer") for n in range(10)])
    assert content_hash(config) != base


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)
SPEAKER = st.sampled_from(["human", "gpt", "system", "x"])
TURN = st.fixed_dictionaries({"from": SPEAKER | JSON, "value": st.text() | JSON})
RECORD = st.fixed_dictionaries(
    {
        "id": JSON,
        "image": st.sampled_from(["coco/train2017/000000000000.jpg", "coco/x\0.jpg", "../x", "coco/\ud800"]) | JSON,
        "conversations": st.lists(TURN | JSON, max_size=4) | JSON,
    }
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=st.lists(RECORD | JSON, max_size=4) | JSON, filtered=st.booleans())
def test_any_json_gives_samples_or_a_data_error(coco, processor_of, no_model, records, filtered):
    coco.image(0)
    path = coco.records(records, "fuzz.json")
    count = max(len(records), 1) if isinstance(records, list) else 1
    prefix = "coco/" if filtered else None
    config = coco.config(path, samples=count, max_skipped_share=0.99, image_prefix=prefix)
    processor = processor_of("tiny_internvl")
    for ask in (check_available, content_hash, lambda c: calibration_data(c, processor, no_model, {3})):
        try:
            ask(config)
        except DataError:
            continue


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=100), suffix=st.sampled_from([".json", ".jsonl"]))
def test_any_file_gives_samples_or_a_data_error(coco, content, suffix):
    path = coco.root / f"fuzz{suffix}"
    path.write_bytes(content)
    for ask in (check_available, read, content_hash):
        try:
            ask(coco.config(str(path), samples=1, image_prefix=None))
        except DataError:
            continue
