"""Every published family: its files are read under the hub's names, and its table row fits its blocks."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from families.conversations import CASES, image, padded, turn
from families.table import FAMILIES, published_names
from qig.config.schema import Model, Outliers
from qig.errors import ConfigError
from qig.models.checkpoint import check_group_size
from qig.models.folding import fold, foldable, shared
from qig.models.loading import load

LINEARS = r"(self_attn\.(q|k|v|o)|mlp\.(gate|up|down))_proj"
# What the published templates render; the picture is still one placeholder (or three tokens).
DIALOGUES = {
    "llava_onevision": (
        "<|im_start|>user <image>\nWhich digit?<|im_end|>"
        "<|im_start|>assistant \n7<|im_end|><|im_start|>user \nSure?<|im_end|><|im_start|>assistant\n"
    ),
    "qwen2_vl": (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Which digit?<|im_end|>\n"
        "<|im_start|>assistant\n7<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n"
    ),
    "internvl3": (
        "<|im_start|>user\n<IMG_CONTEXT>\nWhich digit?<|im_end|>\n"
        "<|im_start|>assistant\n7<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n"
    ),
    "smolvlm": (
        "<|im_start|>User:<image>Which digit?<end_of_utterance>\n"
        "Assistant: 7<end_of_utterance>\nUser: Sure?<end_of_utterance>\nAssistant:"
    ),
}
DIALOGUES["qwen2_5_vl"] = DIALOGUES["qwen2_vl"]
DIALOGUES["qwen3_vl"] = DIALOGUES["qwen2_vl"].partition("<|im_end|>\n")[2]  # no system turn unless one is given
DIALOGUES["idefics3"] = DIALOGUES["smolvlm"]


def loaded_from(path):
    return load(Model("x", str(path), "float32", Outliers(0.0, 0)), torch.device("cpu"))


@pytest.fixture(scope="module", params=FAMILIES)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(name, family_checkpoint):
    return family_checkpoint(name)


@pytest.fixture(scope="module")
def loaded(folder):
    return loaded_from(folder)


@torch.no_grad()
def logits_of(loaded, batch):
    return loaded.model(**batch.inputs, use_cache=False).logits[batch.real]


def test_directory_has_the_published_form(name, folder):
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(FAMILIES[name].tensors) <= index.keys()
    assert set(index.values()) == {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}
    assert any("lm_head" in tensor for tensor in index) != FAMILIES[name].tied


def test_every_stored_weight_arrives_where_it_belongs(name, folder, loaded):
    """InternVL's class would tie the head to the embeddings, which its published files do not."""
    stored = {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}
    arrived = published_names(FAMILIES[name], dict(loaded.model.named_parameters()))
    assert arrived.keys() == stored.keys()
    assert all(torch.equal(value.float(), arrived[key]) for key, value in stored.items())


def test_template_renders_what_the_published_one_does(name, loaded):
    turns = [turn("user", image(96, 96), "Which digit?"), turn("assistant", "7"), turn("user", "Sure?")]
    text = loaded.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == DIALOGUES[name]


def test_image_tokens_are_found_and_images_and_blocks_matter(loaded):
    batch = padded(loaded, CASES["one image"], "right")
    vision = torch.isin(batch.inputs["input_ids"], torch.tensor(sorted(loaded.image_token_ids)))
    assert 9 <= int(vision.sum()) <= 120
    before = logits_of(loaded, batch)
    assert 0.5 < float(before.std()) < 5
    other = [[turn("user", image(96, 96, seed=77), "What is in the picture?"), CASES["one image"][0][1]]]
    changed = logits_of(loaded, padded(loaded, other, "right"))
    assert float((changed - before)[-5:].std()) > 0.02  # behind the picture
    for index, block in enumerate(loaded.blocks):
        handle = block.register_forward_hook(lambda _module, args, _output: args[0])
        assert float((logits_of(loaded, batch) - before).std()) > 0.1, index
        handle.remove()


def test_site_by_site_folding_leaves_the_logits(folder):
    loaded = loaded_from(folder)
    batches = [padded(loaded, CASES[case], "right") for case in ("sizes", "text only")]
    before = [logits_of(loaded, batch) for batch in batches]
    for site in loaded.architecture.sites:
        for index, block in enumerate(loaded.blocks):
            assert foldable(block, site, share=True)
            channels = block.get_submodule(site.consumers[0]).in_features
            noise = torch.randn(channels, generator=torch.Generator().manual_seed(index))
            untouched = {name: block.get_submodule(name).weight.clone() for name in (site.producer, *site.consumers)}
            fold(block, site, torch.exp(shared(block, site, noise)))
            for module, weight in untouched.items():
                assert not torch.allclose(block.get_submodule(module).weight, weight, rtol=0.1)
        for was, batch in zip(before, batches, strict=True):
            assert float((logits_of(loaded, batch) - was).abs().max()) < 1e-5 * float(was.abs().max()), site.name


def test_group_size_is_checked_against_the_decoder_alone(name, folder, loaded):
    """Vision towers are narrower here (64 channels), and some call their blocks layers, too."""
    widths = {
        linear: loaded.blocks[0].get_submodule(linear).in_features for linear in ("mlp.down_proj", "self_attn.o_proj")
    }
    assert widths["mlp.down_proj"] == 256
    check_group_size(folder, LINEARS, 128)
    check_group_size(folder, r".*proj", 128)
    with pytest.raises(ConfigError, match=rf"self_attn.o_proj \({widths['self_attn.o_proj']} input channels\)"):
        check_group_size(folder, LINEARS, 96)
    for vision_only in (r"mlp\.fc1", r"self_attn\.out_proj", r"attn\.qkv", r"mlp\.linear_fc1"):
        with pytest.raises(ConfigError, match="matches no linear of the decoder blocks"):
            check_group_size(folder, vision_only, None)


def test_group_size_is_checked_under_the_names_that_transformers_writes(loaded, tmp_path):
    loaded.model.save_pretrained(tmp_path)
    check_group_size(tmp_path, LINEARS, 128)
    with pytest.raises(ConfigError, match="does not divide"):
        check_group_size(tmp_path, LINEARS, 96)
