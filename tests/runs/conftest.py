import runpy
from pathlib import Path

import pytest

from qig.runs.__main__ import main
from qig.store import write_manifest

FABRICATED = runpy.run_path(str(Path(__file__).parents[1] / "report" / "fabricated.py"))


@pytest.fixture
def store(tmp_path):
    """An empty store of fabricated runs (see tests/report/fabricated.py)."""
    return FABRICATED["Store"](tmp_path / "store")


@pytest.fixture
def seal():
    """``seal(store)``: manifests for all of its artefacts, as the store itself would have written them."""

    def write(store):
        for kind in ("runs", "quantized", "evaluation"):
            for folder in (store.root / kind).iterdir() if (store.root / kind).is_dir() else ():
                write_manifest(folder)

    return write


@pytest.fixture
def ask(store, capsys):
    """``ask("list", ...)``: exit status of qig-runs on that store, and what it said."""

    def command(name, *arguments):
        status = main([name, "--store", str(store.root), *arguments])
        told = capsys.readouterr()
        return status, told.out + told.err

    return command
