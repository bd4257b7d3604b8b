"""Commands beside ``qig``: a mistake is one line and exit status 1."""

import errno
import json
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import qig
from qig.commands import told
from qig.errors import StoreError
from qig.models.tiny import checkpoint_dir


def raising(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StoreError("no run"), "it: no run\n"),
        (OSError(errno.EACCES, "Permission denied", "out/x"), "it: out/x cannot be written: Permission denied\n"),
        (OSError(errno.ENOSPC, "No space left on device"), "it: what it writes cannot be written: No space left"),
    ],
)
def test_mistakes_and_folders_that_cannot_be_written_are_one_line(capsys, error, said):
    assert told("it", raising(error)) == 1
    assert capsys.readouterr().err.startswith(said)


def test_what_went_well_and_what_is_our_own_mistake():
    assert (told("it", lambda: None), told("it", lambda: 3)) == (0, 3)
    for error in (KeyError("x"), FileNotFoundError(errno.ENOENT, "No such file", "x")):
        with pytest.raises(type(error)):
            told("it", raising(error))


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("qig.report.html.__main__", ["{results}", "--to", "{file}/page.html"]),
        ("qig.report.methods", ["--output", "{file}/METHODS.md"]),
        ("qig.report.layer_error", ["--output", "{file}"]),
        ("qig.report.activations", ["model=tiny_internvl", "--to", "{file}"]),
        ("qig.export.wide", ["{file}/wide"]),
        ("qig.export.benchmark", ["{results}", "--source", "{results}", "--to", "{file}"]),
    ],
)
def test_an_output_at_a_file_is_told_in_a_line(tmp_path, capsys, module, words):
    file, results = tmp_path / "file", tmp_path / "results"
    file.write_text("")
    (results / "one").mkdir(parents=True)
    sidecar = {"experiment": "first_run", "cells": [], "runs": {}, "files": {}, "command": "x", "overrides": []}
    (results / "one" / "one.json").write_text(json.dumps(sidecar))
    (results / "one" / "one.md").write_text("## One\n")
    assert import_module(module).main([word.format(file=file, results=results) for word in words]) == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and "cannot be written" in err and str(file) in err


def test_activations_of_a_checkpoint_of_ones_own(tmp_path, capsys):
    from qig.report.activations import main

    shutil.copytree(checkpoint_dir("tiny_internvl"), tmp_path / "own")
    words = ["model=hf", f"model.path={tmp_path / 'own'}", "model.name=own", "calibration.samples=1"]
    assert main([*words, "--to", str(tmp_path / "out")]) == 0
    assert len(capsys.readouterr().out.split()) == 3
    assert main(["model=hf", "--to", str(tmp_path / "out")]) == 1
    assert "model.path has no default" in capsys.readouterr().err


def test_numbers_that_cannot_be_are_told(tmp_path, capsys):
    from qig.export.benchmark import main as benchmark
    from qig.report.layer_error import main as layer_error

    with pytest.raises(SystemExit) as left:
        benchmark([str(tmp_path), "--source", str(tmp_path), "--repeats", "0"])
    assert left.value.code == 2 and "--repeats 0, --tokens 16: expected 1 or more" in capsys.readouterr().err
    assert layer_error(["--sigmas", "-1", "--models", "tiny_internvl", "--output", str(tmp_path)]) == 1
    assert "sigma" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", ["qig.export nowhere --to out", "qig.runs show nowhere", "qig.report nothing"])
def test_a_mistake_is_told_before_anything_heavy_is_imported(tmp_path, words):
    command = [sys.executable, "-X", "importtime", "-m", *words.split()]
    places = os.environ | {"PYTHONPATH": str(Path(qig.__file__).parents[1])}
    found = subprocess.run(command, cwd=tmp_path, env=places, capture_output=True, text=True)
    imported = {line.rpartition("|")[2].strip() for line in found.stderr.splitlines()}
    assert found.returncode == 1 and "qig.errors" in imported
    assert not {"torch", "transformers", "lmms_eval", "matplotlib"} & imported
