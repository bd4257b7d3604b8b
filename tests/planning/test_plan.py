"""What is foreseen of disk and waiting activations against what a real pass leaves; what the rehearsal looks like."""

from __future__ import annotations

import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qig.blockwise.activations import Activations
from qig.blockwise.run import BlockPass
from qig.calibrate import quantize
from qig.config.validation import resolve
from qig.data.calibration import calibration_data
from qig.models.loading import open_model
from qig.models.tiny import checkpoint_dir
from qig.planning.plan import _extrapolated, plan
from qig.planning.rehearsal import BLOCKS, shortened

CPU = torch.device("cpu")
FEW = ("calibration.samples=4", "calibration.tokens_per_batch=200", "tracking=none")
QIG = "method=qig quant=w4a8 sensitivity.nodes=2 sensitivity.max_nodes=2"

GRADIENTS = "method=mbq equalization.sites=[attn_in]"
DISK = "memory.activations=disk"


@pytest.fixture
def config(compose):
    return lambda *overrides: resolve(compose(*FEW, *overrides))


def test_the_rehearsal_has_the_true_shapes_and_two_blocks(config, any_tiny):
    settings = config(f"model={any_tiny}", "method=qig")
    short, whole = shortened(settings.model, CPU), open_model(settings.model, CPU)
    assert len(short.blocks) == BLOCKS < len(whole.blocks)
    true = {name: value.shape for name, value in whole.model.named_parameters()}
    assert all(true[name] == value.shape for name, value in short.model.named_parameters())
    with short.frame():
        assert short.model.lm_head.weight is short.model.get_input_embeddings().weight
        assert float(short.model.lm_head.weight.std()) == pytest.approx(0.02, rel=0.1)


def test_no_weight_is_read(config, tmp_path):
    folder = shutil.copytree(checkpoint_dir("tiny_qwen2_vl"), tmp_path / "without_weights")
    (folder / "model.safetensors").unlink()
    found = plan(config("method=awq", "equalization.points=2", f"model.path={folder}"), CPU)
    assert found.samples == 4 and found.blocks == 6 and found.seconds > 0


@pytest.mark.parametrize("overrides", ["method=awq", QIG, "method=gptq", "method=rtn"])
def test_disk_is_what_a_run_leaves(config, tmp_path, overrides):
    few = [] if overrides in ("method=gptq", "method=rtn") else ["equalization.points=2"]
    settings = config(*overrides.split(), *few)
    found = plan(settings, CPU)
    quantize(settings, CPU, tmp_path / "stage")
    left = sum(file.stat().st_size for file in (tmp_path / "stage").rglob("*.safetensors"))
    assert found.disk_bytes == pytest.approx(left, rel=0.25)


@pytest.mark.parametrize("overrides", ["method=gptq", QIG, GRADIENTS])
def test_what_waits_on_disk_is_what_was_foreseen(config, tmp_path, overrides):
    few = [] if "gptq" in overrides else ["equalization.points=2"]
    settings = config(*overrides.split(), *few, DISK, "calibration.samples=12")
    sizes = []

    class Watched(Activations):
        def keep(self, tensor):
            kept = super().keep(tensor)
            sizes.append(sum(file.stat().st_size for file in self.folder.iterdir()))
            return kept

    loaded = open_model(settings.model, CPU)
    data = calibration_data(settings.calibration, loaded.processor, loaded.model, loaded.image_token_ids)
    activations = Watched(CPU, "disk", tmp_path / "activations")
    BlockPass(loaded, data.batches, settings, activations, tmp_path / "stage").run()
    assert plan(settings, CPU).scratch_bytes == pytest.approx(max(sizes), rel=0.25)


def test_a_plan_knows_what_host_memory_has_no_room_for(config, monkeypatch):
    settings = config(*GRADIENTS.split(), "equalization.points=2", "calibration.samples=12")
    assert plan(settings, CPU).scratch_bytes == 0
    monkeypatch.setattr("qig.blockwise.activations.free_bytes", lambda: 1)
    there = plan(settings, CPU)
    on_disk = plan(config(*GRADIENTS.split(), "equalization.points=2", "calibration.samples=12", DISK), CPU)
    assert 0 < there.scratch_bytes <= on_disk.scratch_bytes


@given(st.floats(0, 10), st.floats(1e-6, 1), st.integers(1, 100), st.integers(1, 100), st.integers(1, 10_000))
def test_a_line_is_followed(fixed, slope, few, more, tokens):
    points = [(n, fixed + slope * n) for n in (few, few + more)]
    assert _extrapolated(points, tokens) == pytest.approx(fixed + slope * tokens, rel=1e-6)


def test_where_there_is_no_line():
    assert _extrapolated([(10, 2.0), (10, 2.0)], 30) == 6  # a single micro-batch
    assert _extrapolated([(10, 3.0), (20, 2.0)], 40) == 4  # the clock's noise: proportional to the larger one
    assert _extrapolated([(0, 2.0), (0, 2.0)], 0) == 2  # nothing is calibrated
