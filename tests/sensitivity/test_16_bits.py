"""Of a model in 16 bits: what is summed is summed in float32 or more, whatever type the model answers in."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from oracles.settings import make_config
from qig.blockwise.capture import Call
from qig.config.schema import AttentionSensitivity
from qig.sensitivity.attention import AttentionReceived
from qig.sensitivity.gradients import sft_loss
from qig.sensitivity.path import Path


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_the_loss_of_16_bit_logits_is_that_of_their_values():
    logits = (4 * random(2, 60, 300)).bfloat16()
    targets = torch.arange(120).view(2, 60)
    targets[1, 40:] = -100
    exact = -logits.double().log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    expected = exact[0].mean() + exact[1, :40].mean()
    torch.testing.assert_close(sft_loss(logits, targets).double(), expected, rtol=1e-6, atol=0)


def test_attention_that_is_received_is_the_mean_of_the_probabilities_values():
    probabilities = random(2, 3, 50, 50).softmax(-1).bfloat16()
    estimator = AttentionReceived(AttentionSensitivity("attention", "token_special", "sample", "none", 0))
    estimator.received = [[]]
    real = torch.ones(2, 50, dtype=torch.bool)
    real[1, 30:] = False
    estimator._keep(0, iter([SimpleNamespace(real=real)]))(None, None, (None, probabilities))
    whole = probabilities.double()
    expected = torch.stack([whole[0].mean((0, 1)), whole[1, :, :30].mean((0, 1))])
    torch.testing.assert_close(estimator.received[0][0].double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_change_of_an_error_is_the_mean_of_the_outputs_values(toys, dtype):
    sites = toys(lengths=((9, 6),))
    sites.block.to(dtype)
    view = sites.view("mlp_in")
    view = replace(view, calls=[Call(call.x.to(dtype), {}) for call in view.calls])
    path = Path(view, make_config(), 0, torch.zeros_like(view.calls[0].x), view.real[0])
    seen = []
    output = path._output
    path._output = lambda branch, x: seen.append(output(branch, x)) or seen[-1]
    path._move(1)
    found = path._scalar(path.point(1))
    exact, quantized = (each.double() for each in seen)
    expected = ((exact - quantized).to(dtype).double().abs().mean(-1) * view.real[0]).sum(1)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
