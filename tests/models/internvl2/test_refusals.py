"""What cannot be converted: one ModelError that says what came and what is supported, and nothing written."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from families import internvl2
from qig.errors import ModelError
from qig.models.internvl2 import convert, is_original


def refused(folder: Path, message: str) -> None:
    """The published directory is ``folder/original``; ``message`` is a pattern."""
    native = folder / "native"
    native.mkdir()
    with pytest.raises(ModelError, match=message):
        convert(folder / "original", native)
    assert not any(native.iterdir())


def edit(file: Path, **changes) -> None:
    values = json.loads(file.read_text())
    for key, value in changes.items():
        values[key] = values[key] | value if isinstance(value, dict) else value
    file.write_text(json.dumps(values))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"ps_version": "v1"}, "ps_version is 'v1'; supported: 'v2'"),
        ({"pad2square": True}, "pad2square is True; supported: False"),
        ({"use_llm_lora": 16}, "use_llm_lora is 16; supported: 0"),
        ({"use_backbone_lora": 8}, "use_backbone_lora is 8; supported: 0"),
        ({"use_thumbnail": False}, "use_thumbnail is False; supported: True"),
        ({"select_layer": -4}, "select_layer is -4; supported: -1 .* to -3"),
        ({"select_layer": 0}, "select_layer is 0; supported"),
        ({"select_layer": None}, "select_layer is None; supported"),
        ({"downsample_ratio": 0}, "downsample_ratio is 0 at"),
        ({"downsample_ratio": "half"}, "downsample_ratio is 'half' at"),
        ({"force_image_size": "448"}, "force_image_size is '448': expected a positive whole number"),
        ({"max_dynamic_patch": None}, "max_dynamic_patch is None: expected a positive whole number"),
        ({"downsample_ratio": 0.3}, "downsample_ratio is 0.3 at 4 by 4 patches; supported: 1/n"),
        ({"force_image_size": 12}, "downsample_ratio is 0.5 at 3 by 3 patches"),
        ({"min_dynamic_patch": 7, "max_dynamic_patch": 6}, "min_dynamic_patch is 7 and max_dynamic_patch 6"),
        ({"template": "phi3-chat"}, "unknown template 'phi3-chat'; choose from: Hermes-2, internlm2-chat, internvl2_5"),
        (
            {"vision_config": {"norm_type": "batch_norm"}},
            "norm_type is 'batch_norm'; supported: 'layer_norm', 'rms_norm'",
        ),
        (
            {"vision_config": {"layer_norm_eps": 1e-5, "qk_normalization": True}},
            "layer_norm_eps is 1e-05; supported: 1e-06",
        ),
        ({"vision_config": {"patch_size": 0}}, "patch_size is 0: expected a positive whole number"),
        ({"vision_config": {"num_attention_heads": 5}}, "transformers cannot build the model .*divisible"),
        (
            {"llm_config": {"architectures": ["Phi3ForCausalLM"]}},
            "is 'Phi3ForCausalLM'; supported: 'InternLM2ForCausalLM', 'Q",
        ),
        (
            {"llm_config": {"rope_scaling": {"type": "yarn", "factor": 2.0}}},
            "type is 'yarn'; supported: 'linear', 'dynamic'",
        ),
        ({"llm_config": {"rope_scaling": {"type": "linear"}}}, "rope_scaling lacks 'factor'"),
        ({"llm_config": {"rope_pos_id_version": "v2pe"}}, "rope_pos_id_version is 'v2pe'; supported: 'default'"),
        ({"llm_config": {"use_sliding_window": True}}, "use_sliding_window is True; supported: False"),
        (
            {"llm_config": {"num_key_value_heads": 4}},
            r"num_key_value_heads \(4\) must divide num_attention_heads \(6\)",
        ),
        ({"llm_config": {"hidden_size": "48"}}, "hidden_size is '48': expected a positive whole number"),
        ({"llm_config": {"hidden_act": "nope"}}, "transformers cannot build the model of this configuration"),
        ({"llm_config": {"rms_norm_eps": "small"}}, "a value that transformers refuses"),
    ],
    ids=str,
)
def test_configuration_without_a_native_equivalent(tmp_path, changes, message):
    internvl2.write(tmp_path / "original", shards=1)
    edit(tmp_path / "original" / "config.json", **changes)
    refused(tmp_path, message)


@pytest.mark.parametrize(
    "section, key", [(None, "llm_config"), (None, "template"), ("vision_config", "qkv_bias"), ("llm_config", "bias")]
)
def test_configuration_that_lacks_a_key(tmp_path, section, key):
    internvl2.write(tmp_path / "original", shards=1)
    file = tmp_path / "original" / "config.json"
    values = json.loads(file.read_text())
    (values[section] if section else values).pop(key)
    file.write_text(json.dumps(values))
    refused(tmp_path, f"lacks '{key}'")


def test_pixel_shuffle_defaults_to_the_first_version(tmp_path):
    internvl2.write(tmp_path / "original", shards=1)
    file = tmp_path / "original" / "config.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "ps_version"}))
    refused(tmp_path, "ps_version is 'v1'")


@pytest.mark.parametrize("text", ["internlm2", "qwen2"])
@pytest.mark.parametrize(
    "name",
    [
        "vision_model.encoder.layers.1.ls2",
        "vision_model.encoder.layers.0.attn.qkv.bias",
        "mlp1.3.weight",
        "language_model.model.norm.weight",
    ],
)
def test_missing_tensor(tmp_path, text, name):
    _, tensors = internvl2.write(tmp_path / "original", text=text, shards=1)
    tensors.pop(name)
    internvl2.save_shards(tmp_path / "original", tensors, 1)
    refused(tmp_path, r"original lacks [13] weights of the model: ")


def test_missing_output_layer_of_an_untied_model(tmp_path):
    _, tensors = internvl2.write(tmp_path / "original", shards=1)
    tensors.pop("language_model.output.weight")
    internvl2.save_shards(tmp_path / "original", tensors, 1)
    refused(tmp_path, "lacks 1 weights of the model: language_model.lm_head.weight")


@pytest.mark.parametrize(
    "name",
    [
        "qllama.norm.weight",
        "language_model.model.layers.0.attention.wqkv.lora_A",
        "vision_model.encoder.layers.7.ls1",
        "vision_model.encoder.layers.0.attn.q_norm.weight",
        "language_model.lm_head.weight",
    ],
)
def test_unknown_tensor(tmp_path, name):
    _, tensors = internvl2.write(tmp_path / "original", shards=1)
    internvl2.save_shards(tmp_path / "original", tensors | {name: torch.zeros(32)}, 1)
    refused(
        tmp_path, r"1 (tensors are not of InternVL2 with a InternLM2|weights the model has not).*" + re.escape(name)
    )


def test_internlm2_tensors_of_another_text_model(tmp_path):
    internvl2.write(tmp_path / "original", shards=1)
    edit(tmp_path / "original" / "config.json", llm_config={"num_hidden_layers": 1})
    refused(tmp_path, r"holds 9 weights the model has not: language_model.model.layers.1.attention")


def test_tensor_that_does_not_fit(tmp_path):
    _, tensors = internvl2.write(tmp_path / "original", shards=1)
    name = "language_model.model.layers.1.feed_forward.w2.weight"
    internvl2.save_shards(tmp_path / "original", tensors | {name: torch.zeros(48, 65)}, 1)
    refused(tmp_path, rf"{name} makes .*down_proj.weight of shape \(48, 65\), but the configuration says \(48, 64\)")


def test_packed_tensor_that_cannot_be_unpacked(tmp_path):
    _, tensors = internvl2.write(tmp_path / "original", shards=1)
    name = "language_model.model.layers.1.attention.wqkv.weight"
    internvl2.save_shards(tmp_path / "original", tensors | {name: torch.zeros(79, 48)}, 1)
    refused(tmp_path, rf"{name} \(79, 48\) does not fit the configuration")


def test_damaged_weights(tmp_path):
    internvl2.write(tmp_path / "original")
    shard = tmp_path / "original" / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    refused(tmp_path, "model-00002-of-00003.safetensors is not a complete safetensors file")


def test_missing_shard(tmp_path):
    internvl2.write(tmp_path / "original")
    (tmp_path / "original" / "model-00002-of-00003.safetensors").unlink()
    refused(tmp_path, r"names the file 'model-00002-of-00003.safetensors', which is not there")


def test_no_safetensors(tmp_path):
    internvl2.write(tmp_path / "original", shards=1)
    (tmp_path / "original" / "model-00001-of-00001.safetensors").rename(tmp_path / "original" / "pytorch_model.bin")
    refused(tmp_path, "holds no .*safetensors files")


def test_tensor_in_two_shards(tmp_path):
    internvl2.write(tmp_path / "original", shards=1)
    shard = tmp_path / "original" / "model-00001-of-00001.safetensors"
    shutil.copy(shard, shard.with_name("model.safetensors"))
    refused(tmp_path, "model.safetensors holds .* once more")


@pytest.mark.parametrize(
    "text, file", [("internlm2", "tokenizer.model"), ("qwen2", "merges.txt"), ("qwen2", "vocab.json")]
)
def test_missing_tokenizer_file(tmp_path, text, file):
    internvl2.write(tmp_path / "original", text=text, shards=1)
    (tmp_path / "original" / file).unlink()
    refused(tmp_path, f"holds no {file}")


@pytest.mark.parametrize(
    "text, file, message",
    [
        ("internlm2", "tokenizer.model", "tokenizer.model is not a sentencepiece model"),
        ("internlm2", "tokenizer_config.json", "tokenizer_config.json cannot be read"),
        ("qwen2", "vocab.json", "the tokenizer in .* cannot be read"),
        ("qwen2", "merges.txt", "the tokenizer in .* cannot be read"),
    ],
)
def test_damaged_tokenizer_file(tmp_path, text, file, message):
    internvl2.write(tmp_path / "original", text=text, shards=1)
    (tmp_path / "original" / file).write_bytes(b"\xff{ not what it was \xff")
    refused(tmp_path, message)


def test_sentencepiece_model_of_another_kind(tmp_path):
    model = internvl2.train_sentencepiece(byte_fallback=False)
    internvl2.write(tmp_path / "original", shards=1, sentencepiece_model=model)
    refused(tmp_path, "expected BPE with byte fallback")


def test_added_tokens_that_contradict_the_model(tmp_path):
    settings, _ = internvl2.write(tmp_path / "original", shards=1)
    last = settings["llm_config"]["vocab_size"]
    token = {"content": "<late>", "special": True}
    edit(tmp_path / "original" / "tokenizer_config.json", added_tokens_decoder={str(last + 5): token})
    refused(tmp_path, rf"added token '<late>' should have id {last + 5}, but its tokenizer gives it {last}")


@pytest.mark.parametrize("text", ["internlm2", "qwen2"])
def test_token_without_embedding(tmp_path, text):
    settings, _ = internvl2.write(tmp_path / "original", text=text, shards=1)
    last = settings["llm_config"]["vocab_size"]
    edit(tmp_path / "original" / "tokenizer_config.json", added_tokens_decoder={str(last): {"content": "<late>"}})
    refused(tmp_path, rf"has ids up to {last}, the text model {last} embeddings")


def test_tokenizer_without_image_tokens(tmp_path):
    internvl2.write(tmp_path / "original", shards=1)
    file = tmp_path / "original" / "tokenizer_config.json"
    added = json.loads(file.read_text())["added_tokens_decoder"]
    settings = json.loads(file.read_text())
    settings["added_tokens_decoder"] = {i: t for i, t in added.items() if t["content"] not in internvl2.IMAGE_TOKENS}
    file.write_text(json.dumps(settings))
    refused(tmp_path, "has no <img>, </img>, <IMG_CONTEXT>, <quad>: expected InternVL2's added tokens")


def test_folder_that_is_not_empty(tmp_path):
    internvl2.write(tmp_path / "original", shards=1)
    with pytest.raises(ModelError, match="is not an empty directory"):
        convert(tmp_path / "original", tmp_path / "original")
    with pytest.raises(ModelError, match="is not an empty directory"):
        convert(tmp_path / "original", tmp_path / "absent")


def test_is_original_of_a_directory_without_configuration(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json cannot be read: FileNotFoundError"):
        is_original(tmp_path)
