"""``qig-export --verify``: what was exported passes, one changed byte of any file does not."""

from __future__ import annotations

import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from qig.errors import QigError
from qig.export.__main__ import main
from qig.export.source import open_source
from qig.export.tensors import Plan
from qig.export.verify import verify
from qig.store import MANIFEST, write_manifest


@pytest.fixture(scope="module")
def export(exported):
    return exported("tiny_internvl", "w3a16")


@pytest.fixture(scope="module")
def plan(export):
    return Plan.of(open_source(export.run.name, export.store))


@pytest.fixture
def copy(export, tmp_path):
    return shutil.copytree(export.folder, tmp_path / "copy")


def test_an_export_passes(export, capsys):
    assert main([export.run.name, "--to", str(export.folder), "--store", str(export.store), "--verify"]) == 0
    assert f"those of run {export.run.name}" in capsys.readouterr().out


@given(data=st.data())
def test_a_changed_byte_is_found_wherever_it_is(data, export, plan):
    file = data.draw(st.sampled_from(sorted(export.folder.iterdir())))
    content = file.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        file.write_bytes(changed)
        with pytest.raises(QigError):
            verify(plan, export.folder)
    finally:
        file.write_bytes(content)


@pytest.mark.parametrize("part", ["weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "layernorm"])
def test_a_changed_bit_is_found_even_with_new_checksums(part, copy, plan):
    file, name = next((file, name) for file in copy.glob("*.safetensors") for name in load_file(file) if part in name)
    tensors = load_file(file)
    tensors[name].view(-1).view(torch.uint8)[0] ^= 1
    save_file(tensors, file, metadata={"format": "pt"})
    write_manifest(copy)
    with pytest.raises(QigError, match=name):
        verify(plan, copy)


def test_missing_and_foreign_tensors_are_found(copy, plan):
    file = next(copy.glob("model-00002*.safetensors"))
    tensors = load_file(file)
    name, value = tensors.popitem()
    save_file(tensors, file)
    write_manifest(copy)
    with pytest.raises(QigError, match=f"{name} is missing"):
        verify(plan, copy)
    save_file({**tensors, name: value, "stranger": torch.zeros(1)}, file)
    write_manifest(copy)
    with pytest.raises(QigError, match="stranger does not belong there"):
        verify(plan, copy)


def test_a_changed_setting_is_found_even_with_new_checksums(copy, plan):
    config = copy / "config.json"
    config.write_text(config.read_text().replace('"num_bits": 3', '"num_bits": 4'))
    write_manifest(copy)
    with pytest.raises(QigError, match=r"config\.json is missing or differs"):
        verify(plan, copy)


def test_the_export_of_another_run_does_not_pass(export, exported, capsys):
    other = exported("tiny_internvl", "w2a16")
    assert main([str(export.run), "--to", str(other.folder), "--verify"]) == 1
    assert "is not the export of run" in capsys.readouterr().err


def test_without_an_export_there_is_nothing_to_verify(export, tmp_path, capsys):
    assert main([str(export.run), "--to", str(tmp_path / "none"), "--verify"]) == 1
    assert "no export to verify" in capsys.readouterr().err
    shutil.copyfile(export.folder / "config.json", tmp_path / "config.json")
    assert main([str(export.run), "--to", str(tmp_path), "--verify"]) == 1
    assert MANIFEST in capsys.readouterr().err
