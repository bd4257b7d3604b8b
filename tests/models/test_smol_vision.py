"""A vision-language model on a language model: its parts, its three stages, and what is shipped of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from itertools import product

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from qig.data.digitgrid import QUESTION_TYPES, SceneSampler, ask
from qig.errors import ModelError
from qig.models.smol_vision import HUB_NAME, PARTS, parts
from qig.models.smol_vision.build import END, IMAGE_TOKENS, NAMED, build_model, build_processor
from qig.models.smol_vision.slots import SLOTS, Slots
from qig.models.smol_vision.train import main
from qig.models.smol_vision.training import RECIPES, Adapter, Trainer
from qig.models.tiny.packing import pack, packed_logits

ADAPTED = "adapter/adapter_model.safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A language model with random weights, and a tokenizer of single bytes with the marks of the real one."""
    return made_base(tmp_path_factory.mktemp("base"), 64, 96, 4, 2)


def made_base(folder, hidden, intermediate, heads, key_value_heads):
    """Such a model of two layers, in ``folder``."""
    vocabulary = {letter: place for place, letter in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", END, *NAMED.values()])
    tokenizer.add_tokens([AddedToken("describe", normalized=False)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token=END, pad_token=END, unk_token="<|endoftext|>"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=2, num_attention_heads=heads,
        num_key_value_heads=key_value_heads, vocab_size=len(fast), tie_word_embeddings=True,
        max_position_embeddings=1024,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def trained(base, stage, steps, start=()):
    """A trainer whose stage has been run, and the model before."""
    processor = build_processor(base)
    model = build_model(base, processor.tokenizer)
    for folder in start:
        parts.load(model, folder, trainable=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    few = {"alignment_steps": steps, "alignment_images": 2} if stage == "see" else {"steps": steps, "images": 2}
    told = []
    trainer = Trainer(model, processor, stage, dataclasses.replace(RECIPES[stage], **few), 0, told.append)
    assert list(trainer.steps(Adapter())) == list(range(1, steps + 1))
    return trainer, before


def changed(trainer, before) -> set[str]:
    after = {name.replace("language_model.base_model.model.", "language_model.").replace(".base_layer", ""): value
             for name, value in trainer.model.state_dict().items()}  # fmt: skip
    assert set(before) <= set(after)
    return {name for name, value in before.items() if not torch.equal(after[name], value)}


def test_words_that_are_spoken_without_mistakes_are_understood(base):
    processor = build_processor(base)
    slots = Slots(processor.tokenizer, build_model(base, processor.tokenizer).get_input_embeddings().weight.detach())
    sampler = SceneSampler("train", 7)
    scenes = [sampler.sample() for _ in range(3)]
    said = slots.spoken(scenes)
    assert said.shape == (3, IMAGE_TOKENS, 64)
    loss, right = slots.loss(said, scenes)
    assert right == dict.fromkeys(SLOTS, 1.0)
    assert slots.loss(slots.spoken(scenes[::-1]), scenes)[1]["digit"] < 1
    assert slots.loss(said + 0.05 * torch.randn_like(said), scenes)[0] > loss
    torch.manual_seed(0)
    noise = slots.spoken(scenes, noise=0.5) - said
    places = noise.unflatten(1, (9, len(SLOTS))).pow(2).sum(-1).mean((0, 1)).sqrt()
    torch.testing.assert_close(
        places, 0.5 * torch.stack([slots.unit[slot] for slot in SLOTS]).sqrt(), rtol=0.15, atol=0
    )


def test_seeing_trains_tower_and_projector(base):
    trainer, before = trained(base, "see", 2)
    names = changed(trainer, before)
    assert names and all("vision_tower" in name or "multi_modal_projector" in name for name in names)


def test_reading_trains_an_adapter_and_nothing_else(base, tmp_path):
    trainer, before = trained(base, "read", 2)
    assert changed(trainer, before) == set()
    parts.save(trainer.model, tmp_path, seen=False)
    values = load_file(tmp_path / ADAPTED)
    assert any(value.abs().max() > 0 for name, value in values.items() if "lora_B" in name)  # zero before
    assert {value.dtype for value in values.values()} == {torch.float16}
    assert sorted(file.name for file in tmp_path.rglob("*.*")) == ["adapter_config.json", "adapter_model.safetensors"]
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == HUB_NAME


def test_both_go_on_together_and_what_is_saved_answers_as_what_was_trained(base, tmp_path):
    for stage in ("see", "read"):
        parts.save(trained(base, stage, 1)[0].model, tmp_path / stage, seen=stage == "see")
    trainer, _ = trained(base, "together", 1, [tmp_path / "see", tmp_path / "read"])
    assert "lora_A" in " ".join(name for name, p in trainer.model.named_parameters() if p.requires_grad)
    parts.save(trainer.model, tmp_path / "both", seen=True)
    parts.assemble(base, tmp_path / "both", tmp_path / "whole")
    whole = AutoModelForImageTextToText.from_pretrained(tmp_path / "whole", dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "whole")
    assert not [name for name in whole.state_dict() if "lora" in name]

    sampler = SceneSampler("test", 1)
    scenes = [sampler.sample() for _ in range(2)]
    questions = [[q for type in QUESTION_TYPES[:4] if (q := ask(scene, type, sampler.rng))] for scene in scenes]
    writer = trainer.curriculum.writer
    batch = pack(trainer.prefix, [[writer.question(q) for q in row] for row in questions], trainer.pad)
    with torch.no_grad():
        packed = packed_logits(trainer.model.eval(), batch, trainer._outputs(scenes), torch.float32)
        chats = [[{"role": "user", "content": [{"type": "image", "image": scenes[row].pil()},
                                               {"type": "text", "text": q.text}]}]
                 for row, asked in enumerate(questions) for q in asked]  # fmt: skip
        inputs = processor.apply_chat_template(
            chats, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True,
            processor_kwargs={"padding": True},
        )  # fmt: skip
        native = whole(**inputs).logits[:, -1]
    got = torch.stack([packed[row, start - 1] for row, start, _, _ in batch.answers])
    assert float((got - native).abs().max()) < 0.05 * float(got.std())  # weights of float16 between them


def test_a_folder_without_parts_is_refused(base, tmp_path):
    processor = build_processor(base)
    with pytest.raises(ModelError, match="expected the folder of an earlier training"):
        parts.load(build_model(base, processor.tokenizer), tmp_path)


def test_what_is_shipped_fits_the_model_that_is_built(tmp_path):
    """On two layers as wide as those of SmolLM2-135M, which has thirty."""
    base = made_base(tmp_path, 576, 1536, 9, 3)
    model = build_model(base, build_processor(base).tokenizer)
    linears = {name: module for name, module in model.model.language_model.layers[0].named_modules()
               if isinstance(module, torch.nn.Linear)}  # fmt: skip
    before = {name: value.clone() for name, value in parts._sight(model).state_dict().items()}
    shutil.copy(PARTS / parts.SIGHT, tmp_path)
    parts.load(model, tmp_path)  # refuses other names and other shapes
    assert any(not torch.equal(before[name], value) for name, value in parts._sight(model).state_dict().items())
    adapter = load_file(PARTS / ADAPTED)
    expected = {}
    for layer, (name, linear) in product(range(30), linears.items()):
        place = f"base_model.model.layers.{layer}.{name}.lora_"
        expected |= {f"{place}A.weight": (8, linear.in_features), f"{place}B.weight": (linear.out_features, 8)}
    assert {name: tuple(value.shape) for name, value in adapter.items()} == expected and len(linears) == 7


def test_a_saving_that_fails_leaves_what_was_saved_before(base, tmp_path, monkeypatch):
    trainer, _ = trained(base, "together", 1)
    parts.save(trainer.model, tmp_path, seen=True)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.*")}
    assert len(before) == 3
    with torch.no_grad():
        for value in trainer.model.parameters():
            value += 1
    with monkeypatch.context() as context, pytest.raises(OSError, match="No space left"):
        context.setattr(parts, "_save_adapter", full_disk)
        parts.save(trainer.model, tmp_path, seen=True)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.*")} == before
    parts.save(trainer.model, tmp_path, seen=True)
    changed = {file for file in tmp_path.rglob("*.*") if file.read_bytes() != before[file]}
    assert {file.suffix for file in changed} == {".safetensors"} and len(changed) == 2


def full_disk(*_):
    raise OSError(28, "No space left on device")


def test_the_command_trains_saves_and_says_what_it_reached(base, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("QIG_CACHE", str(tmp_path / "cache"))
    shutil.copytree(base, tmp_path / "cache" / "packaged" / "smollm2_135m")
    few = ["--steps", "1", "--images", "2", "--test-questions", "1", "--seed", "3"]
    see, read, both = (tmp_path / name for name in ("see", "read", "both"))
    assert main(["see", "--out", str(see), *few]) == main(["read", "--out", str(read), "--unlocked", *few]) == 0
    assert main(["together", "--out", str(both), "--start", str(see), str(read), *few]) == 0
    said = capsys.readouterr().out
    assert f"saved to {both}" in said and all(type in said for type in QUESTION_TYPES)
    record = json.loads((both / "training_together.json").read_text())
    assert (record["start"], record["seed"], record["recipe"]["images"]) == (["see", "read"], 3, 2)
    assert set(record["test_accuracy"]) == set(QUESTION_TYPES) and len(record["curve"]) == 1
    assert json.loads((see / "training_see.json").read_text())["recipe"]["alignment_steps"] == 1
    assert (both / parts.SIGHT).is_file() and (both / ADAPTED).is_file() and not (read / parts.SIGHT).exists()
    monkeypatch.setenv("QIG_CACHE", str(tmp_path / "empty"))
    assert main(["see", "--out", str(tmp_path / "never"), *few]) == 1
    assert "has not been made yet" in capsys.readouterr().err and not (tmp_path / "never").exists()
