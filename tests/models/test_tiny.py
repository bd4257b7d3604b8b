"""The tiny models: packing, processors, shipped checkpoints, and the training command."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from qig.data.digitgrid import QUESTION_TYPES, SPECIAL_TOKENS, VOCABULARY, SceneSampler, ask, evaluation_set
from qig.errors import ModelError
from qig.models.tiny import TINY_MODELS, checkpoint_dir
from qig.models.tiny.alignment import grid_tokens
from qig.models.tiny.build import build_model
from qig.models.tiny.packing import WORDS, image_prefix, pack, packed_logits
from qig.models.tiny.processors import build_processor
from qig.models.tiny.recipe import RECIPES, Curriculum, Recipe
from qig.models.tiny.scoring import accuracy_by_type, answer_questions
from qig.models.tiny.train import main

every_model = pytest.mark.parametrize("name", TINY_MODELS)
IMAGE_TOKENS = {"tiny_qwen2_vl": 36, "tiny_llava_onevision": 78, "tiny_internvl": 36}


@pytest.fixture(scope="module", params=TINY_MODELS)
def shipped(request):
    folder = checkpoint_dir(request.param)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    return request.param, model, AutoProcessor.from_pretrained(folder)


def conversation(scene, text: str) -> list[dict]:
    content = [{"type": "image", "image": scene.pil()}, {"type": "text", "text": text}]
    return [{"role": "user", "content": content}]


def prompt(processor, conversations, **processor_kwargs):
    return processor.apply_chat_template(
        conversations,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs=processor_kwargs,
    )


def test_unknown_model_names_the_choices():
    with pytest.raises(ModelError, match=r"unknown tiny model 'tiny_qwen'.*tiny_internvl"):
        checkpoint_dir("tiny_qwen")
    with pytest.raises(ModelError, match="unknown tiny model"):
        build_model("tiny_qwen")


@every_model
def test_decoder_inputs_take_the_default_group_size(name):
    layers = build_model(name).model.language_model.layers
    linears = [module for module in layers.modules() if isinstance(module, torch.nn.Linear)]
    assert len(linears) == 6 * 7
    assert all(linear.in_features % 128 == 0 for linear in linears)


@every_model
def test_building_is_seeded(name):
    first, again, other = build_model(name, 3), build_model(name, 3), build_model(name, 4)
    pairs = zip(first.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.get_input_embeddings().weight, other.get_input_embeddings().weight)


def test_processor_writes_the_prompt(shipped):
    name, _, processor = shipped
    scene = SceneSampler("test", 0).sample()
    inputs = prompt(processor, [conversation(scene, "what digit is at r2c3 ?")])
    tokens = processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0].tolist())
    assert tokens.count("<|image_pad|>") == IMAGE_TOKENS[name]
    spoken = [token for token in tokens if token != "<|image_pad|>" and "vision" not in token]
    expected = "<|im_start|> user what digit is at r2c3 ? <|im_end|> <|im_start|> assistant"
    assert spoken == expected.split()
    assert [tokens.count(mark) for mark in ("<|vision_start|>", "<|vision_end|>")] == [
        name != "tiny_llava_onevision"
    ] * 2
    pixels = inputs["pixel_values"]
    assert -1 <= pixels.min() < pixels.max() <= 1


def test_shipped_processor_is_the_built_one(shipped):
    name, _, processor = shipped
    built = build_processor(name)
    scene = SceneSampler("test", 0).sample()
    one, two = (prompt(p, [conversation(scene, "how many red ?")]) for p in (processor, built))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert processor.tokenizer.get_vocab() == VOCABULARY
    assert not [token for token in SPECIAL_TOKENS if token not in processor.tokenizer.all_special_tokens]


def test_tokenizer_forgives_case_and_spaces(shipped):
    tokenizer = shipped[2].tokenizer
    assert tokenizer("What color is at R1C1?").input_ids == tokenizer("what color is at r1c1 ?").input_ids
    assert tokenizer.decode(tokenizer("what zebra ?").input_ids, skip_special_tokens=False) == "what <unk> ?"


def test_padding_side_does_not_change_logits(shipped):
    _, model, processor = shipped
    sampler = SceneSampler("test", 0)
    chats = [conversation(sampler.sample(), text) for text in ("how many digits ?", "what digit is right of r1c1 ?")]
    alone = [prompt(processor, [chat]) for chat in chats]
    with torch.no_grad():
        expected = torch.stack([model(**inputs).logits[0, -1] for inputs in alone])
        left = prompt(processor, chats, padding=True)
        assert left["attention_mask"][0, 0] == 0
        got = model(**left).logits[:, -1]
        right = prompt(processor, chats, padding=True, padding_side="right")
        ends = right["attention_mask"].sum(1) - 1
        also = model(**right).logits[torch.arange(2), ends]
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(also, expected, atol=1e-4, rtol=0)


def test_generation_stops_at_the_end_of_turn(shipped):
    _, model, processor = shipped
    scene = SceneSampler("test", 0).sample()
    inputs = prompt(processor, [conversation(scene, "how many digits ?")])
    output = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
    assert len(output) == 2
    assert processor.tokenizer.convert_ids_to_tokens(output.tolist())[1] == "<|im_end|>"


def test_packed_logits_equal_native_ones(shipped):
    """Each packed question against the same question asked alone through the processor."""
    _, model, processor = shipped
    sampler = SceneSampler("train", 1)
    scenes = [sampler.sample() for _ in range(3)]
    questions = [[q for type in QUESTION_TYPES if (q := ask(scene, type, sampler.rng))] for scene in scenes]
    batch = pack(image_prefix(model, processor), [[WORDS.question(q) for q in row] for row in questions])
    images = processor.image_processor([scene.pil() for scene in scenes], return_tensors="pt")
    known = {key: images[key] for key in ("pixel_values", "image_grid_thw", "image_sizes") if key in images}
    with torch.no_grad():
        features = model.model.get_image_features(**known, return_dict=True)
        packed = packed_logits(model, batch, features, torch.float32)
        chats = [conversation(scenes[row], q.text) for row, asked in enumerate(questions) for q in asked]
        native = model(**prompt(processor, chats, padding=True)).logits[:, -1]
    assert [type for *_, type in batch.answers] == [q.type for asked in questions for q in asked]
    got = torch.stack([packed[row, start - 1] for row, start, _, _ in batch.answers])
    torch.testing.assert_close(got, native, atol=1e-4, rtol=0)


def test_grid_tokens_leave_out_the_line_ends():
    index = torch.arange(78.0).expand(2, 78)[..., None]
    line_ends = {36 + 7 * row + 6 for row in range(6)}
    assert grid_tokens(list(index))[1, :, 0].tolist() == [i for i in range(78) if i not in line_ends]
    assert torch.equal(grid_tokens(index[:, :36]), index[:, :36])


def test_curriculum_opens_and_favours_weak_types():
    curriculum = Curriculum()
    shares = dict(zip(QUESTION_TYPES, curriculum.shares(), strict=True))
    assert shares["exists"] == 0 and shares["digit_at_cell"] == pytest.approx(1 / 6)
    curriculum.unlocked = True
    for _ in range(300):
        curriculum.record("exists", [True] * 10)
    shares = dict(zip(QUESTION_TYPES, curriculum.shares(), strict=True))
    assert curriculum.accuracy["exists"] > 0.99
    assert 0 < shares["exists"] < 0.1 * shares["filled"]


def test_rate_warms_up_and_decays():
    recipe = Recipe(steps=1000, alignment_steps=1)
    rates = [recipe.rate(step) for step in range(1000)]
    assert rates[0] == pytest.approx(recipe.learning_rate / 60)
    assert rates[59] == rates[600] == recipe.learning_rate
    assert rates[800] == pytest.approx(recipe.learning_rate / 2)
    assert 0 < rates[-1] <= 0.01 * recipe.learning_rate


def test_shipped_checkpoint_reaches_its_record(shipped):
    name, model, processor = shipped
    record = json.loads((checkpoint_dir(name) / "training_record.json").read_text())
    stated = record["test_accuracy"]
    assert tuple(stated) == QUESTION_TYPES
    assert record["test_accuracy_mean"] >= 0.95
    assert min(stated.values()) >= 0.85
    # Every third question of the very set that the record was measured on.
    items = evaluation_set()[::3]
    accuracy = accuracy_by_type(items, answer_questions(model, processor, items))
    assert sum(accuracy.values()) / len(accuracy) == pytest.approx(record["test_accuracy_mean"], abs=0.02)
    for type in QUESTION_TYPES:
        assert accuracy[type] == pytest.approx(stated[type], abs=0.1), type


def test_shipped_card_and_size(shipped):
    folder = checkpoint_dir(shipped[0])
    card = (folder / "README.md").read_text()
    record = json.loads((folder / "training_record.json").read_text())
    assert f"**{record['test_accuracy_mean']:.1%}**" in card
    assert (folder / "model.safetensors").stat().st_size < 8e6


def test_command_trains_and_saves(tmp_path, monkeypatch, capsys):
    """A few small steps: nothing is learned, but every part of a checkpoint is written and can be loaded."""
    folder = tmp_path / "new" / "folder"
    monkeypatch.setitem(RECIPES, "tiny_internvl", replace(RECIPES["tiny_internvl"], images=2, alignment_images=4))
    sizes = ("--steps", "2", "--alignment-steps", "2", "--test-questions", "1")
    assert main(["model=tiny_internvl", "--out", str(folder), *sizes]) == 0
    assert "s left" in capsys.readouterr().out
    record = json.loads((folder / "training_record.json").read_text())
    assert record["recipe"]["steps"] == 2 and len(record["test_accuracy"]) == 11
    assert "tiny_internvl" in (folder / "README.md").read_text()
    assert type(AutoModelForImageTextToText.from_pretrained(folder)).__name__ == record["architecture"]
    assert AutoProcessor.from_pretrained(folder).tokenizer.padding_side == "left"


def test_the_process_starts_anew_with_an_allocator_that_keeps_large_blocks(monkeypatch):
    class Started(Exception):
        pass

    def execve(program, command, environment):
        assert (program, command) == (sys.executable, [sys.executable, "-m", "qig.models.tiny.train", *arguments])
        assert environment["MALLOC_TRIM_THRESHOLD_"] == "8589934592"
        raise Started

    arguments = ["model=tiny_internvl", "--steps", "2", "--out", "unused"]
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    monkeypatch.setattr("sys.argv", ["train.py", *arguments])
    monkeypatch.setattr("os.execve", execve)
    with pytest.raises(Started):
        main()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["model=tiny_gpt"], "tiny_internvl"),
        (["model=tiny_internvl", "--steps", "0"], "'0' is not a whole number above 0"),
        (["model=tiny_internvl", "--out", __file__], "is a file, a folder was expected"),
    ],
)
def test_command_line_mistakes_are_explained(arguments, complaint, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--out", str(tmp_path), *arguments])
    assert complaint in capsys.readouterr().err


def test_command_checks_the_question_count_before_training(tmp_path, capsys):
    arguments = ["model=tiny_internvl", "--out", str(tmp_path / "new"), "--test-questions", "1000"]
    assert main(arguments) == 1
    assert "fewer than 1000 of each" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
