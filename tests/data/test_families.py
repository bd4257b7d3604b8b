"""Processors of other families and other settings: several images of several sizes, text only, all in one corpus."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from transformers import (
    Qwen2_5_VLProcessor,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from oracles.calls import logits_of
from qig.data.calibration import collate
from qig.data.encoding import encode
from qig.data.samples import CalibrationSample, PlainText, Turn, single_turn
from qig.data.tokens import TokenKind

TEXT = "describe the image in detail ."
SIZES = ((48, 48), (96, 48), (40, 90), (200, 30))


def image(size: tuple[int, int]) -> Image.Image:
    return Image.linear_gradient("L").resize(size).convert("RGB")


def corpus() -> list[CalibrationSample]:
    one, wide, high, thin = map(image, SIZES)
    two_turns = (
        Turn("user", (wide, "red", thin)),
        Turn("assistant", ("the image shows red",)),
        Turn("user", ("blue", high)),
        Turn("assistant", ("red .",)),
    )
    shots = (single_turn("a", [one], TEXT, "red").segments[0], single_turn("b", [high], TEXT, "blue").segments[0])
    return [
        single_turn("text only", [], TEXT, "the image shows red ."),
        single_turn("one", [one], TEXT, "red"),
        CalibrationSample("plain", (PlainText("the image shows a red blue", 4),)),
        CalibrationSample("two turns", (two_turns,)),
        single_turn("wide", [wide], TEXT, "blue ."),
        CalibrationSample("few shot", shots),
        single_turn("two", [thin, one], TEXT, "the image shows red ."),
        CalibrationSample("interleaved", (shots[0], PlainText("the image shows a blue"), shots[1])),
    ]


def anyres_llava(processor_of):
    processor = processor_of("tiny_llava_onevision")
    return type(processor)(
        type(processor.image_processor)(
            **processor.image_processor.to_dict() | {"image_grid_pinpoints": [[48, 48], [48, 96], [96, 48]]}
        ),
        processor.tokenizer,
        processor.video_processor,
        num_image_tokens=processor.num_image_tokens,
        vision_feature_select_strategy="full",
        chat_template=processor.chat_template,
    )


def tiled_internvl(processor_of):
    processor = processor_of("tiny_internvl")
    tiled = processor.image_processor.to_dict() | {"crop_to_patches": True, "min_patches": 1, "max_patches": 4}
    return type(processor)(
        type(processor.image_processor)(**tiled),
        processor.tokenizer,
        processor.video_processor,
        image_seq_length=36,
        chat_template=processor.chat_template,
    )


def native_qwen2_vl(processor_of):
    """Images keep their size, so that they differ in their number of tokens."""
    processor = processor_of("tiny_qwen2_vl")
    area = {"size": {"shortest_edge": 64, "longest_edge": 96 * 96}}
    return type(processor)(
        type(processor.image_processor)(**processor.image_processor.to_dict() | area),
        processor.tokenizer,
        processor.video_processor,
        chat_template=processor.chat_template,
    )


def qwen2_5_vl(processor_of):
    base = native_qwen2_vl(processor_of)
    return Qwen2_5_VLProcessor(
        base.image_processor, base.tokenizer, base.video_processor, chat_template=base.chat_template
    )


def qwen3_vl(processor_of):
    base = native_qwen2_vl(processor_of)
    video = Qwen3VLVideoProcessor(patch_size=4, merge_size=2)
    return Qwen3VLProcessor(base.image_processor, base.tokenizer, video, chat_template=base.chat_template)


def smolvlm(processor_of):
    base = processor_of("tiny_qwen2_vl", True)
    images = SmolVLMImageProcessor(size={"longest_edge": 96}, max_image_size={"longest_edge": 48})
    return SmolVLMProcessor(
        images,
        base.tokenizer,
        SmolVLMVideoProcessor(size={"longest_edge": 96}, max_image_size={"longest_edge": 48}, fps=1, num_frames=2),
        image_seq_len=9,
        chat_template=base.chat_template.replace("<|vision_start|><|image_pad|><|vision_end|>", "<|image_pad|>"),
    )


FAMILIES = (anyres_llava, tiled_internvl, native_qwen2_vl, qwen2_5_vl, qwen3_vl, smolvlm)


@pytest.fixture(params=FAMILIES, ids=lambda family: family.__name__)
def family(request, processor_of, monkeypatch):
    # SmolVLM spells out the number of video frames with a package that nothing else needs
    monkeypatch.setattr("transformers.models.smolvlm.processing_smolvlm.num2words", object())
    return request.param(processor_of)


@pytest.mark.parametrize("budget", [1, 700, 100_000])
def test_one_corpus_of_all_forms(family, no_model, budget):
    samples, image_ids = corpus(), {family.image_token_id}
    batches = collate(samples, family, no_model, image_ids, budget)
    assert sorted(position for batch in batches for position in batch.order) == list(range(len(samples)))
    for batch in batches:
        ids = batch.inputs["input_ids"]
        assert torch.equal(batch.kinds == TokenKind.VISION, torch.isin(ids, torch.tensor(sorted(image_ids))))
        assert torch.equal(batch.real, batch.inputs["attention_mask"].bool())
        for row, position in enumerate(batch.order):
            alone = encode(samples[position], family, image_ids)
            assert batch.kinds[row][batch.real[row]].tolist() == alone.kinds.tolist()
            texts = "".join(s.text if isinstance(s, PlainText) else _answers(s) for s in samples[position].segments)
            if position != 2:  # that one is cut
                answers = batch.inputs["input_ids"][row][batch.kinds[row] == TokenKind.ANSWER]
                assert family.tokenizer.decode(answers).replace(" ", "") == texts.replace(" ", "")


def _answers(conversation) -> str:
    return "".join(part for turn in conversation if turn.role == "assistant" for part in turn.content)


def test_images_differ_in_tokens(family):
    """The corpus is one: its images really differ in their number of tokens."""
    counts = [
        int((encode(single_turn("s", [image(size)], TEXT, "red"), family, {family.image_token_id}).kinds == 2).sum())
        for size in SIZES
    ]
    assert len(set(counts)) > 1 and min(counts) > 0


def test_other_samples_in_the_batch_do_not_change_a_samples_logits(fresh_model, any_tiny, batches_of):
    loaded = fresh_model(any_tiny, blocks=1)
    samples = corpus()
    alone = {b.ids[0]: logits_of(loaded, [b])[0][0] for b in batches_of(loaded, samples, tokens_per_batch=1)}
    together = batches_of(loaded, samples, tokens_per_batch=100_000)
    assert sorted(len(batch.ids) for batch in together) == [2, 6]
    for batch in together:
        logits = logits_of(loaded, [batch])[0]
        for row, name in enumerate(batch.ids):
            torch.testing.assert_close(logits[row][batch.real[row]], alone[name], rtol=1e-4, atol=1e-5)
