"""A checkpoint as a stranger may have made it: no pickle is opened, no code is run, no other folder is read."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from qig.config.schema import Model, Outliers
from qig.errors import ConfigError, ModelError
from qig.models import checkpoint
from qig.models.files import not_read, read_json, shards, tensor_shapes
from qig.models.loading import load, open_model


class Trap:
    """Leaves a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(checkpoint.resolve("embedded:tiny_qwen2_vl"), tmp_path / "checkpoint")


@pytest.fixture
def trap(tmp_path):
    """A file that the test's code would leave, and the pickle that makes it."""
    marker = tmp_path / "executed"
    content = pickle.dumps(Trap(marker))
    pickle.loads(content)
    assert marker.is_file()
    marker.unlink()
    return marker, content


def loaded(folder):
    return load(Model("x", str(folder), "float32", Outliers(0.0, 0)), torch.device("cpu"))


def changed(file: Path, **values) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "model.ckpt"])
def test_pickled_weights_alone_are_refused_by_name(folder, trap, name):
    marker, content = trap
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"other weight formats are not read\); there are {name}"):
        loaded(folder)
    assert not marker.exists()


def test_a_pickle_beside_safetensors_is_ignored_by_name(folder, trap, caplog):
    marker, content = trap
    expected = {name: value.clone() for name, value in loaded(folder).model.state_dict().items()}
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        (folder / name).write_bytes(content)
    with caplog.at_level("INFO", "qig"):
        found = loaded(folder).model.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert "no other weights and no code: optimizer.pt, pytorch_model.bin, training_args.bin" in caplog.text
    assert not marker.exists() and not_read(folder) == ["optimizer.pt", "pytorch_model.bin", "training_args.bin"]


def test_weights_under_another_name_do_not_bring_a_pickle_in(folder, trap):
    """Transformers looks for pytorch_model.bin where there is no model.safetensors."""
    marker, content = trap
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(ModelError, match="cannot be loaded by transformers"):
        loaded(folder)
    assert not marker.exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "processor_config.json"])
def test_code_that_comes_with_a_checkpoint_is_not_run(folder, tmp_path, file, monkeypatch):
    marker = tmp_path / "executed"
    (folder / "trap.py").write_text(f"import pathlib; pathlib.Path({str(marker)!r}).touch()\nclass Trap: pass\n")
    names = ("AutoConfig", "AutoModelForImageTextToText", "AutoProcessor", "AutoTokenizer", "AutoImageProcessor")
    changed(folder / file, auto_map=dict.fromkeys(names, "trap.Trap"))
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # to transformers' question
    assert len(loaded(folder).blocks) > 0
    changed(folder / file, processor_class="TrapProcessor", tokenizer_class="Trap", image_processor_type="Trap")
    try:
        loaded(folder)
    except ModelError as error:
        assert "cannot be loaded by transformers" in str(error)
    assert not marker.exists()


@pytest.mark.parametrize(
    "shard",
    ["../other/model.safetensors", "/etc/passwd", "/tmp/a.safetensors", "..\\a.safetensors", "a/b.safetensors", "..",
     "", "pytorch_model.bin", "\0.safetensors", None, 3],
)  # fmt: skip
def test_an_index_that_leaves_the_folder_is_refused(folder, shard):
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model.safetensors", "x": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"index\.json names the file .*: expected a \*\.safetensors file of the same"):
        loaded(folder)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ('{"weight_map": {"a": "absent.safetensors"}}', r"names the file 'absent\.safetensors', which is not there"),
        ('{"weight_map": ["a"]}', "holds no weight_map"),
        ("[]", "holds a list: expected an object"),
        ("{", "cannot be read: JSONDecodeError"),
        ("[" * 100_000, "cannot be read: RecursionError"),
    ],
)
def test_a_damaged_index_is_named(folder, index, said):
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ModelError, match=rf"model\.safetensors\.index\.json {said}"):
        tensor_shapes(folder)


def test_shapes_are_those_of_the_tensors(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    half = {name: value.bfloat16() for name, value in tensors.items()}
    half |= {"scalar": torch.tensor(1), "none": torch.ones(0)}
    save_file(half, folder / "model.safetensors")
    assert tensor_shapes(folder) == {name: tuple(value.shape) for name, value in half.items()}


def test_weights_are_read_once_though_a_repository_has_them_twice(folder):
    """As Mistral's have: consolidated.safetensors, under other names, beside what transformers loads."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    save_file({f"again.{name}": value.clone() for name, value in tensors.items()}, folder / "consolidated.safetensors")
    assert shards(folder) == [folder / "model.safetensors"]
    assert tensor_shapes(folder).keys() == tensors.keys()
    half = len(tensors) // 2
    (folder / "model.safetensors").unlink()
    named = {"model-1.safetensors": sorted(tensors)[:half], "model-2.safetensors": sorted(tensors)[half:]}
    for file, names in named.items():
        save_file({name: tensors[name] for name in names}, folder / file)
    places = {name: file for file, names in named.items() for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert shards(folder) == [folder / file for file in named]
    assert tensor_shapes(folder).keys() == tensors.keys()
    assert loaded(folder).model.config.model_type == "qwen2_vl"  # transformers means the same files


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"null", b'"text"', b"[1]", b"3", b"[" * 100_000])
def test_json_that_is_no_object(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        read_json(tmp_path / "config.json")
    for read in (checkpoint.model_type, checkpoint.own_dtype, checkpoint.is_quantized):
        with pytest.raises(ModelError, match=r"config\.json"):
            read(tmp_path)


@pytest.mark.parametrize("value", [None, 3, ["qwen2_vl"], {}])
def test_model_type_that_is_no_name(tmp_path, value):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": value}))
    with pytest.raises(ModelError, match="does not say the model_type"):
        checkpoint.model_type(tmp_path)


@pytest.mark.parametrize("dtype", ["load", "float64", "int8", ["float32"], 3])
def test_dtype_that_nothing_is_computed_in(tmp_path, dtype):
    (tmp_path / "config.json").write_text(json.dumps({"torch_dtype": dtype}))
    with pytest.raises(ConfigError, match=r"says dtype .*: set model.dtype to bfloat16, float16, float32"):
        checkpoint.own_dtype(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"dtype": "bfloat16"}}))
    assert checkpoint.own_dtype(tmp_path) == "bfloat16"


def test_a_file_that_transformers_stumbles_over_is_a_model_error(folder):
    (folder / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(ModelError, match="cannot be loaded by transformers"):
        open_model(Model("x", str(folder), "float32", Outliers(0.0, 0)), torch.device("cpu"))
