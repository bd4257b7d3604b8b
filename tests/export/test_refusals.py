"""What cannot be exported: one message, status 1, and nothing left behind."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys

import pytest

from qig.export.__main__ import main


@pytest.fixture(scope="module")
def export(exported):
    return exported("tiny_qwen2_vl", "w4a16")


@pytest.fixture
def refused(tmp_path, capsys):
    """``refused(run, ...)``: the message; asserts that there is one line and that no file appeared."""

    def call(run, *arguments, to=None) -> str:
        target = to or tmp_path / "out" / "export"
        before = sorted(tmp_path.rglob("*"))
        capsys.readouterr()
        assert main([str(run), "--to", str(target), *map(str, arguments)]) == 1
        said = capsys.readouterr()
        assert said.out == "" and said.err.startswith("qig-export: ") and said.err.count("\n") == 1
        assert [path for path in sorted(tmp_path.rglob("*")) if path.name != "out"] == before
        return said.err

    return call


def copied(export, tmp_path):
    """The run and its stage in a store of their own."""
    stage = export.record["stages"]["quantized"]
    store = tmp_path / "store"
    shutil.copytree(export.run, store / "runs" / export.run.name)
    shutil.copytree(export.store / "quantized" / stage, store / "quantized" / stage)
    return store, store / "quantized" / stage


def test_unknown_runs_and_stores(refused, export, tmp_path):
    assert "unknown run" in refused("0" * 16, "--store", export.store)
    assert "no store of runs" in refused(export.run.name, "--store", tmp_path / "nowhere")
    assert "holds no record.json" in refused(export.store / "quantized")


def test_the_beginning_of_an_id_names_a_run(export, tmp_path):
    arguments = [export.run.name[:10], "--store", str(export.store), "--to", str(tmp_path / "short")]
    assert main(arguments) == 0
    assert (tmp_path / "short" / "model.safetensors").is_file()


def test_a_run_that_has_not_finished(refused, export, tmp_path):
    store, _ = copied(export, tmp_path)
    (store / "runs" / export.run.name).rename(store / "runs" / f".partial-{export.run.name}.claim")
    for name in (export.run.name, f".partial-{export.run.name}.claim"):
        assert f"run {export.run.name} has not finished" in refused(name, "--store", store)


def test_a_16_bit_run(refused, make_run):
    assert "16-bit run" in refused(make_run("model=tiny_qwen2_vl", "quant=fp16", "method=none"))


@pytest.mark.parametrize("setting", ["w4a4", "w4a6"])
def test_activations_that_nothing_reads(setting, refused, make_run):
    run = make_run("model=tiny_qwen2_vl", f"quant={setting}", "method=rtn")
    said = refused(run)
    assert setting in said and "pack-quantized" in said and "int-quantized" in said


def test_damaged_integers(refused, export, tmp_path):
    store, stage = copied(export, tmp_path)
    file = stage / "blocks" / "001" / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert "damaged" in refused(export.run.name, "--store", store)
    shutil.rmtree(stage)
    assert "absent" in refused(export.run.name, "--store", store)


def test_another_checkpoint_in_the_place_of_the_runs_own(refused, make_run, tmp_path):
    from qig.models.checkpoint import resolve

    checkpoint = shutil.copytree(resolve("embedded:tiny_qwen2_vl"), tmp_path / "checkpoint")
    (checkpoint / "note.txt").write_text("not the embedded one, whose run would be found in the store")
    run = make_run("model=tiny_qwen2_vl", f"model.path={checkpoint}", "quant=w4a16", "method=rtn")
    (checkpoint / "generation_config.json").write_text("{}")
    assert "another checkpoint" in refused(run)
    shutil.rmtree(checkpoint)
    assert "does not exist" in refused(run)


def test_a_target_that_is_not_empty(refused, export, tmp_path):
    (tmp_path / "there").mkdir()
    assert main([str(export.run), "--to", str(tmp_path / "there")]) == 0  # empty: that is allowed
    assert "is there and not empty" in refused(export.run, to=tmp_path / "there")
    assert "is there and not empty" in refused(export.run, to=tmp_path / "there" / "config.json")


def test_a_disk_that_is_full(refused, export, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
        said = refused(export.run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "could not be written" in said


def test_a_target_below_a_file(refused, export, tmp_path):
    (tmp_path / "file").write_text("")
    assert "could not be written" in refused(export.run, to=tmp_path / "file" / "export")


def test_help_is_quick_to_load_nothing():
    code = (
        "import sys; from qig.export.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(', '.join({'torch', 'transformers', 'compressed_tensors'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "--verify" in done.stdout
