"""Checkpoints that are absent, incomplete, damaged or of an unknown kind: one message that says so."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from qig.config.schema import Model, Outliers
from qig.errors import ConfigError, ModelError
from qig.models import checkpoint
from qig.models.architectures import ARCHITECTURES, architecture_of
from qig.models.loading import load
from qig.quantized import load_checkpoint

LINEARS = r"(self_attn\.(q|k|v|o)|mlp\.(gate|up|down))_proj"


def loaded_from(path):
    return load(Model("x", str(path), "float32", Outliers(0.0, 0)), torch.device("cpu"))


@pytest.fixture(scope="session")
def original(fresh_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    loaded = fresh_model("tiny_qwen2_vl")
    loaded.model.save_pretrained(folder)
    loaded.processor.save_pretrained(folder)
    return folder


@pytest.fixture
def copy(original, tmp_path):
    return shutil.copytree(original, tmp_path / "copy")


def test_intact_checkpoint(original):
    loaded = loaded_from(original)
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert len(loaded.blocks) == 2 and loaded.image_token_ids


@pytest.mark.parametrize("path", ["/no/such/dir", "./nothing", "~/nothing-here-at-all", "nothing", "a/b/c"])
def test_directory_that_does_not_exist(path):
    with pytest.raises(ModelError, match="does not exist"):
        checkpoint.resolve(path)


def test_directory_without_config(tmp_path):
    with pytest.raises(ModelError, match=r"holds no config.json: expected a Hugging Face checkpoint"):
        checkpoint.resolve(str(tmp_path))


def test_hub_id_offline(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"'owner/model' is no local directory, is not in the local.*hf download"):
        checkpoint.resolve("owner/model")


@pytest.mark.parametrize(("cached", "offline", "told"), [(False, False, True), (True, False, False),
                                                         (False, True, False)])  # fmt: skip
def test_a_download_is_told_and_shows_its_progress(monkeypatch, tmp_path, caplog, cached, offline, told):
    import huggingface_hub
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    if cached:
        snapshot = tmp_path / "models--owner--model" / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text(json.dumps({"model_type": "qwen2_vl"}))
        (snapshot.parents[1] / "refs").mkdir()
        (snapshot.parents[1] / "refs" / "main").write_text("abc")
    silent = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download",
                        lambda *_, **__: silent.append(are_progress_bars_disabled()) or str(tmp_path))
    enable_progress_bars()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_vl"}))
    checkpoint.resolve("owner/model")
    assert silent == [not told] and ("owner/model is not in the local hub cache" in caplog.text) == told


def test_a_revision_of_a_hub_id(monkeypatch, tmp_path):
    """The real cache's layout, without a network: each revision is another directory."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    home = tmp_path / "models--owner--model"
    for ref, commit in (("main", "a" * 40), ("v1.0", "b" * 40), ("refs/pr/1", "c" * 40)):
        (home / "snapshots" / commit).mkdir(parents=True)
        (home / "snapshots" / commit / "config.json").write_text(json.dumps({"model_type": "qwen2_vl"}))
        (home / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
        (home / "refs" / ref).write_text(commit)
    asked = ("", "@v1.0", "@refs/pr/1", f"@{'b' * 40}")
    found = [checkpoint.resolve(f"owner/model{revision}").name[0] for revision in asked]
    assert found == ["a", "b", "c", "b"]
    with pytest.raises(ModelError, match=r"'owner/model@v2' is no local.*`hf download owner/model --revision v2`"):
        checkpoint.resolve("owner/model@v2")


def test_unknown_embedded_model():
    with pytest.raises(ModelError, match="unknown tiny model 'huge'"):
        checkpoint.resolve("embedded:huge")


def test_directory_without_weights(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"holds no \*.safetensors"):
        loaded_from(copy)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_truncated_weights_name_the_file(copy, keep):
    file = copy / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(ModelError, match=r"model\.safetensors is not a complete safetensors file"):
        loaded_from(copy)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_weight_is_named(copy, value):
    tensors = load_file(copy / "model.safetensors")
    name = next(n for n in tensors if n.endswith("layers.1.mlp.up_proj.weight"))
    tensors[name] = tensors[name].clone()
    tensors[name][3, 5] = tensors[name][0, 0] = value
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj\.weight \(384, 128\) holds 2 non-finite values"):
        loaded_from(copy)


def test_missing_tensor_is_named(copy):
    """transformers would start it at random and only log."""
    tensors = load_file(copy / "model.safetensors")
    name = next(n for n in tensors if n.endswith("layers.1.mlp.up_proj.weight"))
    save_file({n: t for n, t in tensors.items() if n != name}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks .*layers\.1\.mlp\.up_proj\.weight"):
        loaded_from(copy)


@pytest.mark.parametrize("missing", ["tokenizer.json", "processor_config.json"])
def test_missing_processor_file(copy, missing):
    (copy / missing).unlink()
    with pytest.raises(ModelError, match=str(copy)):
        loaded_from(copy)


@pytest.mark.parametrize("model_type", ["bert", "llava", "nonsense"])
def test_unknown_architecture_lists_the_known(copy, model_type):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"model_type": model_type}))
    with pytest.raises(ModelError, match=f"unknown architecture '{model_type}'.*{', '.join(sorted(ARCHITECTURES))}"):
        loaded_from(copy)


def test_damaged_config(copy):
    (copy / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json"):
        loaded_from(copy)


def test_architecture_names(any_tiny):
    assert architecture_of(any_tiny.removeprefix("tiny_")).sites
    with pytest.raises(ModelError, match=r"did you mean 'qwen2_vl'"):
        architecture_of("qwen2vl")


def test_content_hash_sees_what_matters(copy):
    before = checkpoint.content_hash(copy)
    (copy / "README.md").write_text("about")
    assert checkpoint.content_hash(copy) == before
    (copy / "generation_config.json").write_text("{}")
    changed = checkpoint.content_hash(copy)
    assert changed != before
    (copy / "extra.safetensors").write_bytes(b"x")
    assert checkpoint.content_hash(copy) != changed
    hashes = checkpoint.file_hashes(copy)
    assert {"model.safetensors", "extra.safetensors", "config.json"} <= hashes.keys() and "README.md" not in hashes
    assert hashes["extra.safetensors"] == hashlib.sha256(b"x").hexdigest()


@pytest.mark.parametrize("name", ["chat_template.jinja", "vocab.txt", "merges.txt", "tokenizer.model", "config.json"])
def test_content_hash_sees_a_change_of_any_file_that_decides_a_prompt(copy, name):
    (copy / name).write_text("{}")
    before = checkpoint.content_hash(copy)
    (copy / name).write_text("[]")
    changed = checkpoint.content_hash(copy)
    stem, _, ending = name.partition(".")
    (copy / name).rename(copy / f"{stem}_.{ending}")  # its place among the others stays
    assert len({before, changed, checkpoint.content_hash(copy)}) == 3


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "float16"}, "float16"),
        ({"dtype": "float32", "torch_dtype": "float16"}, "float32"),
        ({"dtype": None, "text_config": {"dtype": "bfloat16"}}, "bfloat16"),
        ({"text_config": {"torch_dtype": "float16"}}, "float16"),
        ({"dtype": "bfloat16", "text_config": {"dtype": "float32"}}, "bfloat16"),
        ({"dtype": "float8_e4m3fn", "text_config": {"dtype": "float32"}}, None),
        ({"vision_config": {"dtype": "float32"}}, None),
    ],
)
def test_the_type_of_its_numbers_is_the_one_that_its_configuration_gives(tmp_path, config, found):
    (tmp_path / "config.json").write_text(json.dumps(config))
    if found is None:
        with pytest.raises(ConfigError, match=r"config\.json says (no dtype|dtype 'float8_e4m3fn'): set model\.dtype"):
            checkpoint.own_dtype(tmp_path)
    else:
        assert checkpoint.own_dtype(tmp_path) == found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_checkpoint_that_nothing_is_said_of_is_loaded_in_its_own_type(fresh_model, tmp_path, dtype):
    """As by python -m qig.evaluation."""
    made = fresh_model("tiny_internvl", blocks=1)
    made.model.to(dtype).save_pretrained(tmp_path)
    made.processor.save_pretrained(tmp_path)
    loaded = load_checkpoint(tmp_path, torch.device("cpu")).model
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
    assert all(torch.equal(value, made.model.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_hashes_of_large_files_are_remembered_until_the_file_changes(copy, monkeypatch, tmp_path):
    hashed = []
    plain = checkpoint.sha256
    monkeypatch.setattr(checkpoint, "LARGE", 100_000)
    monkeypatch.setattr(checkpoint, "sha256", lambda file: hashed.append(file.name) or plain(file))
    monkeypatch.setenv("QIG_CACHE", str(tmp_path / "cache"))
    first = checkpoint.content_hash(copy)
    assert hashed.count("model.safetensors") == 1
    assert checkpoint.content_hash(copy) == first and hashed.count("model.safetensors") == 1
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    changed = checkpoint.content_hash(copy)
    assert changed != first and hashed.count("model.safetensors") == 2
    for note in (tmp_path / "cache" / "hashes").iterdir():
        note.write_text("no hash")
    assert checkpoint.content_hash(copy) == changed and hashed.count("model.safetensors") == 3


def test_group_size(original):
    checkpoint.check_group_size(original, LINEARS, 128)
    checkpoint.check_group_size(original, LINEARS, None)
    with pytest.raises(ConfigError, match=r"group_size=256.*mlp.gate_proj \(128 input.*sizes that do: 32, 64, 128"):
        checkpoint.check_group_size(original, LINEARS, 256)
    with pytest.raises(ConfigError, match=r"group_size=192 does not divide.* self_attn\.q_proj \(128") as told:
        checkpoint.check_group_size(original, LINEARS, 192)
    assert "down_proj" not in str(told.value)  # 384 is a multiple of 192
    with pytest.raises(ConfigError, match=r"linears='nothing' matches no linear"):
        checkpoint.check_group_size(original, "nothing", 128)


def test_group_size_of_the_shipped_checkpoints(any_tiny):
    folder = checkpoint.resolve(f"embedded:{any_tiny}")
    checkpoint.check_group_size(folder, LINEARS, 128)
    with pytest.raises(ConfigError, match="does not divide"):
        checkpoint.check_group_size(folder, LINEARS, 100)
