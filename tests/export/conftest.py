"""Runs of all settings on the embedded models, their exports, and what transformers makes of them by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import TINY

LIBRARYS_GRID = "quant.activations.scale=range"
SETTINGS = ("w4a16", "w3a16", "w2a16", "w8a8", "w4a8")
# How integers are packed knows no model, and how tensors are called knows no bits: all settings on one, few on others.
PAIRS = [(model, s) for model in TINY for s in SETTINGS if model == TINY[0] or s in ("w4a16", "w3a16", "w8a8")]
ALONE = Path(__file__).parent / "load_alone.py"


@dataclass(frozen=True)
class Export:
    """A run, in its store, and the folder that it was exported to."""

    run: Path
    folder: Path
    model: str
    setting: str

    @property
    def store(self) -> Path:
        return self.run.parents[1]

    @property
    def record(self) -> dict:
        return json.loads((self.run / "record.json").read_text())


@pytest.fixture(scope="session")
def store(tmp_path_factory, worker_id) -> Path:
    """One for all of the suite's processes, which need the same runs: whoever comes first makes them."""
    own = tmp_path_factory.getbasetemp()
    return (own if worker_id == "master" else own.parent) / "exports" / "store"


@pytest.fixture(scope="session")
def make_run(compose, store):
    """``make_run("quant=w4a16", ...)``: the folder of a finished run over a few questions."""
    from qig.runner import Prepared

    few = (
        "calibration.samples=2",
        "evaluation.limit=6",
        "evaluation.max_empty_share=1",
        "tracking=none",
        f"store={store}",
    )

    def make(*overrides: str) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("qig.runner.BASELINES", {})  # nobody reads them here
            outcome = Prepared(compose(*few, *overrides)).run()
        return outcome.store / "runs" / outcome.run

    return make


@pytest.fixture(scope="session")
def exported(make_run, tmp_path_factory):
    """``exported(model, setting, *overrides)``: written by the command, once; shards of at most 0.6 MB."""
    from qig.export.__main__ import main

    made: dict[tuple[str, ...], Export] = {}

    def make(model: str, setting: str, *overrides: str) -> Export:
        key = (model, setting, *overrides)
        if key not in made:
            # Equalization folds into norms and weights, as do the synthetic outliers that tiny models come with.
            method = "smoothquant" if setting in ("w4a16", "w8a8") else "rtn"
            run = make_run(f"model={model}", f"quant={setting}", f"method={method}", *overrides)
            folder = tmp_path_factory.mktemp("export") / f"{model}-{setting}"
            assert main([str(run), "--to", str(folder), "--shard-size", "0.0006"]) == 0
            made[key] = Export(run, folder, model, setting)
        return made[key]

    return make


@pytest.fixture(scope="session")
def picture(tmp_path_factory) -> Path:
    from qig.data.digitgrid import evaluation_set

    path = tmp_path_factory.mktemp("picture") / "picture.png"
    evaluation_set(seed=5, images=1, per_type=1)[0].image.save(path)
    return path


@pytest.fixture(scope="session")
def alone(exported, picture, tmp_path_factory):
    """``alone(export)``: logits that a process without our package got from the export's folder, float32."""
    from safetensors.torch import load_file

    exports = [exported(model, setting) for model, setting in PAIRS]
    exports += [exported(TINY[0], setting, "model.dtype=bfloat16") for setting in ("w4a16", "w8a8")]
    exports += [exported(TINY[0], setting, LIBRARYS_GRID) for setting in ("w8a8", "w4a8")]
    result = tmp_path_factory.mktemp("alone") / "logits.safetensors"
    ours = {Path(path).resolve() for path in sys.path if (Path(path) / "qig").is_dir()}
    path = os.pathsep.join(entry for entry in sys.path if entry and Path(entry).resolve() not in ours)
    command = [sys.executable, "-S", str(ALONE), str(picture), str(result), *(str(e.folder) for e in exports)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, cwd=result.parent, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    logits = load_file(result)
    return lambda export: logits[str(export.folder)]


@pytest.fixture(scope="session")
def evaluated(picture):
    """``evaluated(export)``: logits of the fake-quantized model that the run evaluated, float32."""
    import torch

    from export.load_alone import logits_of
    from qig.quantized import load_checkpoint

    def logits(export: Export):
        loaded = load_checkpoint(export.run, torch.device("cpu"))
        return logits_of(loaded.model, loaded.processor, str(picture))

    return logits
