"""Small checkpoints on disk and block passes over them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qig.blockwise.activations import Activations
from qig.blockwise.run import BlockPass
from qig.config.validation import needs_calibration, resolve
from qig.models.loading import load

CPU = torch.device("cpu")
WITHOUT_GRID = ("rtn", "smoothquant", "gptq", "gptaq", "gptq_qig", "vlmq")


@pytest.fixture(scope="session")
def saved_model(fresh_model, tmp_path_factory):
    """``saved_model(name)``: a directory with a random model of three blocks and its processor."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            loaded = fresh_model(name, blocks=3)
            loaded.model.save_pretrained(made[name])
            loaded.processor.save_pretrained(made[name])
        return made[name]

    return make


@pytest.fixture(scope="session")
def configured(compose, saved_model):
    """``configured("method=qig", ..., model="tiny_internvl")``: resolved, few samples and exponents."""

    def make(*overrides: str, model: str = "tiny_qwen2_vl"):
        few = ["calibration.samples=3", "calibration.tokens_per_batch=300", "tracking=none"]
        if not {f"method={name}" for name in WITHOUT_GRID} & set(overrides):
            few += ["equalization.points=5", "equalization.step=0.2"]
        if {"method=qig", "method=gptq_qig"} & set(overrides):
            few += ["sensitivity.nodes=2", "sensitivity.max_nodes=2"]
        path = f"model.path={saved_model(model)}"
        return resolve(compose(f"model={model}", path, "model.outliers.sigma=0.5", *few, *overrides))

    return make


@pytest.fixture(scope="session")
def passed(digit_samples, batches_of):
    """``passed(config, folder)``: the model after the pass, and the block's records."""

    def make(config, folder: Path):
        loaded = load(config.model, CPU)
        batches = batches_of(loaded, digit_samples[:3]) if needs_calibration(config) else []
        return loaded, BlockPass(loaded, batches, config, Activations(CPU), folder).run()

    return make
