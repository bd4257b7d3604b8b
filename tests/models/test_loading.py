"""A model opened block by block is the model in memory, and holds no weight that nobody asked for."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from oracles.calls import logits_of
from qig.config.schema import Model, Outliers
from qig.errors import ModelError
from qig.models.loading import load, open_model
from qig.models.tiny import checkpoint_dir

CPU = torch.device("cpu")


@pytest.fixture
def config(any_tiny) -> Model:
    return Model(any_tiny, f"embedded:{any_tiny}", "float32", Outliers(0.65, 1))


def on_meta(loaded) -> set[str]:
    return {name for name, parameter in loaded.model.named_parameters() if parameter.is_meta}


def test_everything_is_on_meta_until_it_is_asked_for(config):
    opened = open_model(config, CPU)
    names = {name for name, _ in opened.model.named_parameters()}
    blocks = {name for name in names if ".language_model.layers." in name}
    assert on_meta(opened) == names and blocks
    with opened.frame():
        assert on_meta(opened) == blocks
        assert not opened.model.lm_head.weight.is_meta
    assert on_meta(opened) == names
    with opened.block(1) as block:
        assert not any(parameter.is_meta for parameter in block.parameters())
        assert on_meta(opened) == names


def test_a_checkpoint_without_its_tokenizer_is_refused(tmp_path, any_tiny):
    """Transformers makes one of a single token, whose prompts lack their pictures' places."""
    shutil.copytree(checkpoint_dir(any_tiny), tmp_path / "copy")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "copy" / file).unlink()
    with pytest.raises(ModelError, match=r"copy (has no tokenizer; expected its files|cannot be loaded)"):
        open_model(Model("own", str(tmp_path / "copy"), "float32", Outliers(0.0, 0)), CPU)


def test_blocks_and_frame_have_the_weights_of_the_model_in_memory(config):
    opened, whole = open_model(config, CPU), load(config, CPU)
    for index, expected in enumerate(whole.blocks):
        with opened.block(index) as block:
            for name, value in expected.state_dict().items():
                assert torch.equal(block.state_dict()[name], value)
    with opened.frame():
        found = dict(opened.model.named_parameters())
        for name, value in whole.model.named_parameters():
            assert found[name].is_meta or torch.equal(found[name], value)


def test_the_model_in_memory_is_transformers_own(any_tiny, digit_samples, batches_of):
    from transformers import AutoModelForImageTextToText

    whole = load(Model(any_tiny, f"embedded:{any_tiny}", "float32", Outliers(0.0, 0)), CPU)
    plain = AutoModelForImageTextToText.from_pretrained(checkpoint_dir(any_tiny), dtype=torch.float32).eval()
    assert {n: p.shape for n, p in whole.model.named_parameters()} == {n: p.shape for n, p in plain.named_parameters()}
    assert whole.model.lm_head.weight is whole.model.get_input_embeddings().weight  # tied, as in the configuration
    batches = batches_of(whole, digit_samples[:2])
    own = logits_of(whole, batches)
    for batch, logits in zip(batches, own, strict=True):
        with torch.no_grad():
            assert torch.equal(logits, plain(**batch.inputs, use_cache=False).logits)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_have_the_configured_type_block_by_block_and_in_memory(any_tiny, dtype):
    from transformers import AutoModelForImageTextToText

    kind = getattr(torch, dtype)
    plain = AutoModelForImageTextToText.from_pretrained(checkpoint_dir(any_tiny), dtype=kind)
    config = Model(any_tiny, f"embedded:{any_tiny}", dtype, Outliers(0.0, 0))
    for name, value in load(config, CPU).model.named_parameters():
        assert value.dtype is kind and torch.equal(value, plain.get_parameter(name)), name
    opened = open_model(config, CPU)
    blocks = plain.get_submodule(opened.architecture.text_model).layers
    with opened.block(1) as block:
        assert all(torch.equal(value, blocks[1].get_parameter(name)) for name, value in block.named_parameters())


@pytest.fixture
def damaged(any_tiny, tmp_path):
    """A copy of a shipped checkpoint in which one weight of a block was changed by the given function."""
    import shutil

    def make(change):
        folder = tmp_path / any_tiny
        shutil.copytree(checkpoint_dir(any_tiny), folder)
        tensors = load_file(folder / "model.safetensors")
        name = next(name for name in tensors if name.endswith("layers.2.mlp.up_proj.weight") and "vis" not in name)
        tensors[name] = change(tensors[name].clone())
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return Model("copy", str(folder), "float32", Outliers(0.0, 0))

    return make


def test_a_bad_weight_is_named_when_its_block_is_brought_in(damaged):
    def with_nan(weight):
        weight[3, 4] = torch.nan
        return weight

    opened = open_model(damaged(with_nan), CPU)
    with opened.block(1):
        pass
    with pytest.raises(ModelError, match=r"layers\.2\.mlp\.up_proj\.weight .* holds 1 non-finite"), opened.block(2):
        pass


def test_a_weight_of_another_shape_is_named(damaged):
    opened = open_model(damaged(lambda weight: weight[:-1]), CPU)
    with pytest.raises(ModelError, match=r"layers\.2\.mlp\.up_proj\.weight has shape"), opened.block(2):
        pass
