"""Mixtures, few-shot and interleaved forms: who is in them, in which order, and the whole's seed and skips."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qig.config.nested import with_inner_sets
from qig.config.schema import (
    DigitGridCalibration,
    FewShotCalibration,
    InterleavedCalibration,
    MixtureCalibration,
)
from qig.data.calibration import calibration_data, samples_of
from qig.data.samples import ImagePolicy, PlainText
from qig.data.sets import check_available, content_hash, read
from qig.errors import DataError

DIGITS = DigitGridCalibration("digitgrid", 1, 0, 1000, 0.0)


@pytest.fixture
def texts(tmp_path, make_pile):
    table = pa.table({"text": [f"plain text {n} ." for n in range(9)]})
    pq.write_table(table, tmp_path / "texts.parquet")
    return make_pile(tmp_path / "texts.parquet", 1)


def mixture(samples: int, shares: dict[str, float], seed: int = 0, **parts) -> MixtureCalibration:
    return MixtureCalibration("mixture", samples, seed, 1000, 0.0, shares, parts)


def test_mixture_takes_each_part_by_its_share(coco, ten, texts):
    config = mixture(7, {"captions": 2, "text": 1, "digits": 0.5}, captions=coco.config(ten), text=texts, digits=DIGITS)
    check_available(config)
    ids = [sample.id for sample in samples_of(config)]
    assert [name.partition("/")[0] for name in ids] == ["captions"] * 4 + ["text"] * 2 + ["digits"]
    assert ids[:4] == [f"captions/{s.id}" for s in samples_of(coco.config(ten, 4))]
    assert len(set(ids)) == 7
    other = [sample.id for sample in samples_of(replace(config, seed=9))]
    assert other[:4] == [f"captions/{s.id}" for s in samples_of(coco.config(ten, 4, seed=9))] != ids[:4]


def test_parts_with_images_and_without_in_one_corpus(coco, ten, texts, processor_of, no_model):
    processor = processor_of("tiny_llava_onevision")
    config = mixture(6, {"captions": 1, "text": 1}, captions=coco.config(ten), text=texts)
    data = calibration_data(config, processor, no_model, {processor.image_token_id})
    assert data.record()["samples"] == [sample.id for sample in samples_of(config)]
    assert {("pixel_values" in batch.inputs, batch.ids[0].partition("/")[0]) for batch in data.batches} == {
        (True, "captions"),
        (False, "text"),
    }


def test_few_shot_joins_neighbours(coco, ten):
    plain = samples_of(coco.config(ten, 6, seed=3))
    config = FewShotCalibration("few_shot", 3, 3, 1000, 0.0, 2, coco.config(ten))
    joined = samples_of(config)
    assert [sample.id for sample in joined] == [f"{plain[i].id}+{plain[i + 1].id}" for i in (0, 2, 4)]
    assert [sample.segments for sample in joined] == [plain[i].segments + plain[i + 1].segments for i in (0, 2, 4)]


@pytest.mark.parametrize(("images", "max_pixels"), [("pad", None), ("native", None), ("native", 300)])
def test_pictures_of_joined_samples_are_changed_as_their_set_says(coco, ten, texts, images, max_pixels):
    config = coco.config(ten, images=images, max_pixels=max_pixels)
    shots = FewShotCalibration("few_shot", 2, 0, 1000, 0.0, 2, config)
    between = InterleavedCalibration("interleaved", 2, 0, 1000, 0.0, 2, config, texts)
    for joined in (shots, between, mixture(4, {"captions": 1}, captions=config)):
        assert {sample.policy for sample in samples_of(joined)} == {ImagePolicy(images == "pad", max_pixels)}


def test_interleaved_puts_a_text_between_neighbours(coco, ten, texts):
    plain, between = samples_of(coco.config(ten, 6)), samples_of(replace(texts, samples=4))
    config = InterleavedCalibration("interleaved", 2, 0, 1000, 0.0, 3, coco.config(ten), texts)
    first, second = samples_of(config)
    order = (plain[0], between[0], plain[1], between[1], plain[2])
    assert first.segments == tuple(segment for sample in order for segment in sample.segments)
    assert first.id == f"{plain[0].id}+text/{between[0].id}+{plain[1].id}+text/{between[1].id}+{plain[2].id}"
    assert [isinstance(segment, PlainText) for segment in second.segments] == [False, True, False, True, False]


def test_who_is_left_without_a_partner_is_named(coco, ten, texts, make_record):
    records = [make_record(n) for n in range(4)]
    records[2]["conversations"].pop()
    config = coco.config(coco.records(records), 4)
    order = [sample.id for sample in read(config).samples]
    shots = read(FewShotCalibration("few_shot", 2, 0, 1000, 0.0, 2, config))
    assert [sample.id for sample in shots.samples] == [f"{order[0]}+{order[1]}"]
    assert shots.skipped == {f"{2:012d}#2": "has no answer", order[2]: "is left without a partner"}
    mixed = read(InterleavedCalibration("interleaved", 2, 0, 1000, 0.0, 2, config, texts))
    assert len(mixed.samples) == 1 and list(mixed.skipped) == [f"{2:012d}#2", order[2], mixed_text(texts, 1)]


def mixed_text(texts, position: int) -> str:
    return f"text/{samples_of(replace(texts, samples=2))[position].id}"


def test_an_image_that_cannot_be_read_costs_its_group(coco, ten, processor_of, no_model):
    coco.image(5).unlink()
    processor = processor_of("tiny_qwen2_vl")
    config = FewShotCalibration("few_shot", 5, 0, 1000, 0.3, 2, coco.config(ten))
    data = calibration_data(config, processor, no_model, {processor.image_token_id})
    ((name, reason),) = data.skipped.items()
    assert f"{5:012d}#5" in name and "does not exist" in reason
    assert len(data.record()["samples"]) == 4


def test_missing_parts_are_told_at_once(coco, ten, texts):
    config = mixture(4, {"a": 1, "b": 1}, a=coco.config("/nowhere.json"), b=texts)
    with pytest.raises(DataError, match=r"^calibration\.parts\.a\.path='/nowhere\.json' cannot be read"):
        check_available(config)
    few = FewShotCalibration("few_shot", 4, 0, 1000, 0.0, 2, coco.config("/nowhere.json"))
    with pytest.raises(DataError, match=r"^calibration\.of\.path='/nowhere\.json' cannot be read"):
        check_available(few)
    named_so = FewShotCalibration("few_shot", 4, 0, 1000, 0.0, 2, coco.config("/calibration.jsonl"))
    with pytest.raises(DataError, match=r"^calibration\.parts\.b\.of\.path='/calibration\.jsonl' cannot be read"):
        check_available(mixture(4, {"a": 1, "b": 1}, a=texts, b=named_so))
    with pytest.raises(DataError, match="has 9 samples, but 10 are asked for"):
        samples_of(InterleavedCalibration("interleaved", 5, 0, 1000, 0.0, 3, replace(DIGITS), texts))


def test_hash_is_that_of_the_parts(coco, ten, texts, make_record):
    config = mixture(4, {"a": 1, "b": 1}, a=coco.config(ten), b=texts)
    base = content_hash(config)
    assert content_hash(with_inner_sets(config)) == base
    assert content_hash(replace(config, seed=1)) != base
    turned = replace(config, parts=dict(reversed(config.parts.items())))  # another order of samples
    assert content_hash(turned) != base and turned.parts == config.parts
    assert content_hash(mixture(4, {"a": 1, "b": 1}, a=coco.config(ten), b=DIGITS)) != base
    coco.records([make_record(n, answer="another") for n in range(10)])
    assert content_hash(config) != base
