"""A model over two accelerators that are not there: torch's fake tensors know their devices, and refuse to mix them."""

import inspect
import re

import pytest
import torch
from accelerate.hooks import remove_hook_from_submodules
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from qig.errors import ModelError
from qig.evaluation.spread import spread
from qig.quantization.grid import ActivationGrid, WeightGrid
from qig.quantization.linear import replace
from qig.quantization.setting import Setting

ROOM = 4 * 2**20  # bytes; a tiny model has 6 to 7 million


@pytest.fixture
def loaded(shipped):
    """A tiny model quantized to W4A8, whose layers are none of transformers'."""
    setting = Setting(WeightGrid(4, True, None), ActivationGrid(8, "max"), re.compile(r"(self_attn|mlp)\..*_proj"))
    for block in shipped.blocks:
        for name, linear in setting.selected(block).items():
            quantized = setting.nearest(linear)
            replace(block, name, setting.derived(quantized.quantized, quantized.bias, torch.float32))
    return shipped


@pytest.fixture
def two_cards(loaded, monkeypatch):
    """Within the mode that is returned, ``cuda:0`` and ``cuda:1`` are there; the model's tensors have no values."""
    mode = FakeTensorMode()
    for module in loaded.model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = _like(tensor, mode.from_tensor(tensor.detach()))
    loaded.model.tie_weights()

    def move(module, name, device, **_):
        parent, _, leaf = name.rpartition(".")
        owner = module.get_submodule(parent)
        tensors = owner._parameters if leaf in owner._parameters else owner._buffers
        tensors[leaf] = _like(tensors[leaf], tensors[leaf].to(device))

    for place in ("hooks", "utils"):
        monkeypatch.setattr(f"accelerate.{place}.set_module_tensor_to_device", move)  # accelerate's looks at the type
    monkeypatch.setattr("accelerate.utils.get_balanced_memory", lambda *_, **__: {0: ROOM, 1: ROOM, "cpu": 10**12})
    return mode


def _like(old, new):
    return nn.Parameter(new, requires_grad=False) if isinstance(old, nn.Parameter) else new


def devices(module):
    return {str(tensor.device) for tensor in [*module.parameters(), *module.buffers()]}


def ask(model):
    """A prompt, and the token after it."""
    ids = torch.ones(2, 7, dtype=torch.long, device=model.device)
    first = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True)
    mask = torch.ones(2, 8, dtype=torch.long, device=model.device)
    return model(input_ids=ids[:, :1], attention_mask=mask, past_key_values=first.past_key_values).logits


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_a_model_over_two_devices_answers_on_the_first(loaded, two_cards):
    with two_cards:
        spread(loaded)
        places = [devices(block) for block in loaded.blocks]
        assert {"cuda:0"} in places and {"cuda:1"} in places and all(len(place) == 1 for place in places)
        assert devices(loaded.model) == {"cuda:0", "cuda:1"}
        assert {"logits_to_keep", "mm_encoder_outputs"} <= set(inspect.signature(loaded.model.forward).parameters)
        assert str(loaded.model.device) == str(ask(loaded.model).device) == "cuda:0"


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_without_what_spreads_it_such_a_model_fails(loaded, two_cards):
    """That the test above can fail."""
    with two_cards:
        spread(loaded)
        remove_hook_from_submodules(loaded.model)
        with pytest.raises(RuntimeError, match="at least two devices"):
            ask(loaded.model)


@pytest.mark.filterwarnings("ignore:Current model requires")
def test_accelerators_that_are_too_small_are_named(loaded, monkeypatch):
    monkeypatch.setattr("accelerate.utils.get_balanced_memory", lambda *_, **__: {0: 2**20, 1: 2**20, "cpu": 10**12})
    with pytest.raises(ModelError, match=r"evaluation\.sharded: the accelerators .* no room for (lm_head|model)"):
        spread(loaded)
