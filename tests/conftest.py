"""Settings and fixtures for all tests: offline, one thread, and small models with random weights."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

# Before anything imports torch, transformers or W&B; subprocesses inherit them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))  # oracles

import pytest
from hypothesis import settings

settings.register_profile("ci", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("ci")

# What takes longest begins first, so that neither of two processes works alone at the end.
LONGEST = (
    "export/", "test_documents", "experiment/test_gather", "evaluation/test_parallel", "test_families",
    "sensitivity/test_release", "config/", "experiment/test_launching", "blockwise/test_run", "test_cli",
    "models/test_tiny", "evaluation/test_presets", "faults/",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    def place(item) -> int:
        name = item.nodeid.removeprefix("tests/")
        return next((number for number, start in enumerate(LONGEST) if name.startswith(start)), len(LONGEST))

    items.sort(key=place)


TINY = ("tiny_qwen2_vl", "tiny_llava_onevision", "tiny_internvl")


@pytest.fixture(scope="session", autouse=True)
def nothing_twice_for_small_runs():
    """There are hundreds; going through all objects of the heap, or all installed packages, takes longer than some."""
    from qig.accelerator import ruled_out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qig.stages.give_back", lambda: None)
        patch.setattr("qig.devices.ruled_out", functools.cache(ruled_out))
        yield


@pytest.fixture(scope="session")
def composed():
    """``composed("method=rtn", ...)``: what Hydra composes of the overrides."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    from qig.config import conf_dir, register
    from qig.config.composed import Composer, without_hydra

    register()

    def whole(words: list[str]):
        with initialize_config_dir(config_dir=str(conf_dir())):
            return hydra_compose("config", overrides=words, return_hydra_config=True)

    composer = Composer(whole)
    return lambda *overrides: without_hydra(composer(overrides))


@pytest.fixture(scope="session")
def compose(composed):
    """``compose("method=rtn", ...)``: the configuration object that the command line would make of the overrides."""
    from omegaconf import OmegaConf

    return lambda *overrides: OmegaConf.to_object(composed(*overrides))


def random_model(name: str, blocks: int = 2, seed: int = 0, key_value_heads: int | None = None):
    """A ``LoadedModel`` of the real classes with random weights, norms, and biases, and few decoder blocks."""
    import torch

    from qig.models.architectures import architecture_of
    from qig.models.loading import LoadedModel
    from qig.models.tiny.build import build_model
    from qig.models.tiny.processors import build_processor

    model = build_model(name, seed)
    text = model.config.text_config
    text.num_hidden_layers = blocks
    text.layer_types = text.layer_types[:blocks]
    if key_value_heads is not None:
        text.num_key_value_heads = key_value_heads
    model = type(model)(model.config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for parameter_name, parameter in model.model.language_model.layers.named_parameters():
        if "norm" in parameter_name:
            parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator))
        elif parameter_name.endswith("bias"):
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
        else:
            parameter.copy_(0.12 * torch.randn(parameter.shape, generator=generator))
    return LoadedModel(model, build_processor(name), architecture_of(model.config.model_type))


@pytest.fixture(scope="session")
def fresh_model():
    """``fresh_model(name, blocks=2, seed=0, key_value_heads=None)``: a new random model each time."""
    return random_model


@pytest.fixture(scope="session")
def family_checkpoint(tmp_path_factory):
    """``family_checkpoint(name, **changes)``: the directory of a checkpoint as published, small and random.

    ``changes`` replace values of its ``config.json``.
    """
    from families.table import FAMILIES, LANGUAGE, write_checkpoint

    made: dict[str, Path] = {}

    def make(name: str, **changes) -> Path:
        key = f"{name}-{changes}"
        if key not in made:
            folder = tmp_path_factory.mktemp(name)
            write_checkpoint((FAMILIES | LANGUAGE)[name], folder, **changes)
            made[key] = folder
        return made[key]

    return make


@pytest.fixture(params=TINY)
def any_tiny(request) -> str:
    return request.param


@pytest.fixture(params=TINY)
def shipped(request):
    """Each shipped checkpoint, loaded without synthetic outliers."""
    import torch

    from qig.config.schema import Model, Outliers
    from qig.models.loading import load

    return load(Model(request.param, f"embedded:{request.param}", "float32", Outliers(0.0, 0)), torch.device("cpu"))


@pytest.fixture(scope="session")
def digit_samples():
    """Six calibration samples, whose captions differ in length."""
    from qig.data.digitgrid import calibration_samples

    return calibration_samples(6, seed=3)


@pytest.fixture(scope="session")
def batches_of():
    """``batches_of(loaded, samples, tokens_per_batch=200)``: micro-batches, by default several with padding."""
    from qig.data.calibration import collate

    def make(loaded, samples, tokens_per_batch=300):
        return collate(samples, loaded.processor, loaded.model, loaded.image_token_ids, tokens_per_batch)

    return make


@pytest.fixture
def config(compose, tmp_path):
    """A resolved run of one method on an embedded model."""
    from qig.config.validation import resolve

    return resolve(compose("model=tiny_internvl", "method=rtn", "tracking=none", f"store={tmp_path / 'store'}"))


@pytest.fixture
def stages(config, monkeypatch):
    """The stages of ``config``, made of nothing; ``made``: the kinds that were, in their order."""
    from qig.models import checkpoint
    from qig.stages import Stages

    found = Stages.of(config, checkpoint.content_hash(checkpoint.resolve(config.model.path)))
    made: list[str] = []

    def build(kind: str, folder: Path) -> None:
        (folder / "content.json").write_text(f'"{kind}"')
        if kind == "evaluation":
            (folder / "samples.jsonl").touch()  # nothing was asked
        made.append(kind)

    def make(self, folder, config, keys, title):
        for kind in ("quantized", "evaluation"):
            self.store.make(kind, keys.stages[kind], lambda inner, kind=kind: build(kind, inner))
        build("runs", folder)

    monkeypatch.setattr(Stages, "_make", make)
    monkeypatch.setattr(Stages, "made", made, raising=False)
    return found
