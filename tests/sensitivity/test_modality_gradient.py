"""MBQ's gradients and ratios against one autograd pass a sample, without hooks and without padding."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from qig.blockwise.activations import Activations
from qig.blockwise.site import SiteView
from qig.blockwise.streams import Streams
from qig.config.schema import ModalityGradientSensitivity
from qig.data.tokens import TokenKind
from qig.models.architectures import LLAMA_SITES
from qig.sensitivity.estimator import WholeModel
from qig.sensitivity.gradients import hidden_bytes, output_gradients, sft_loss
from qig.sensitivity.modality_gradient import ModalityGradient

NAMES = ["self_attn.o_proj", "mlp.down_proj"]
CPU = torch.device("cpu")


class Plus(nn.Module):
    """``linear(x) + delta``: the loss gradient at ``delta = 0`` is that at the linear's output."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear, self.delta = linear, None

    def forward(self, x):
        y = self.linear(x)
        self.delta = torch.zeros_like(y, requires_grad=True)
        return y + self.delta


def mean_loss(loaded, batch) -> torch.Tensor:
    """Mean negative log-likelihood of one sample's labels, in the model's precision (transformers' own is float32)."""
    logits = loaded.model(**batch.inputs, use_cache=False).logits[0]
    pairs = [(t - 1, label) for t, label in enumerate(batch.labels[0].tolist()) if label != -100]
    return -torch.stack([logits[t].log_softmax(-1)[label] for t, label in pairs]).mean()


def oracle_gradients(loaded, batch) -> list[dict[str, torch.Tensor]]:
    """``|dL/dy|`` averaged over channels for a micro-batch of one sample."""
    assert len(batch.ids) == 1
    probes = []
    for block in loaded.blocks:
        block.self_attn.o_proj, block.mlp.down_proj = Plus(block.self_attn.o_proj), Plus(block.mlp.down_proj)
        probes.append({NAMES[0]: block.self_attn.o_proj, NAMES[1]: block.mlp.down_proj})
    with torch.enable_grad():
        mean_loss(loaded, batch).backward()
    found = [{name: probe.delta.grad.abs().mean(-1)[0] for name, probe in block.items()} for block in probes]
    for block, probe in zip(loaded.blocks, probes, strict=True):
        block.self_attn.o_proj, block.mlp.down_proj = probe[NAMES[0]].linear, probe[NAMES[1]].linear
    return found


def test_loss_is_the_sum_of_the_samples_means():
    logits = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.full((2, 5), -100)
    labels[0, 2:4] = torch.tensor([3, 1])
    labels[1, 1:5] = torch.tensor([0, 6, 2, 2])
    log_p = logits.log_softmax(-1)
    first = -(log_p[0, 1, 3] + log_p[0, 2, 1]) / 2
    second = -(log_p[1, 0, 0] + log_p[1, 1, 6] + log_p[1, 2, 2] + log_p[1, 3, 2]) / 4
    torch.testing.assert_close(sft_loss(logits[:, :-1], labels[:, 1:]), first + second)


@pytest.fixture
def case(fresh_model, digit_samples, batches_of, any_tiny):
    """Model, padded micro-batches of three samples, and each sample's own gradients without padding."""
    loaded = fresh_model(any_tiny, blocks=3)
    loaded.model.double()
    samples = digit_samples[:3]
    alone = {batch.ids[0]: batch for batch in batches_of(loaded, samples, tokens_per_batch=1)}
    together = batches_of(loaded, samples, tokens_per_batch=10_000)
    assert len(alone) == 3 and len(together) == 1 and not together[0].real.all()
    return loaded, together, alone


def test_gradients_of_padded_batches_are_those_of_single_samples(case):
    loaded, (batch,), alone = case
    found = output_gradients(loaded, [batch], NAMES, Activations(CPU))
    for row, name in enumerate(batch.ids):
        for block, expected in enumerate(oracle_gradients(loaded, alone[name])):
            for linear in NAMES:
                own = found[block][linear][0][row]
                size = len(expected[linear])
                scale = float(expected[linear].max())
                assert float((own[:size] - expected[linear]).abs().max()) < 1e-5 * scale
                assert (own[size:] == 0).all()


def test_no_hook_and_no_gradient_is_left(case):
    loaded, (batch,), _ = case
    output_gradients(loaded, [batch], NAMES, Activations(CPU))
    for module in loaded.blocks.modules():  # transformers keeps hooks of its own in the vision towers
        assert not module._forward_hooks and not module._forward_pre_hooks
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in loaded.model.parameters())


def test_what_host_memory_has_no_room_for_waits_on_disk_and_changes_no_bit(case, tmp_path, monkeypatch, caplog):
    loaded, batches, _ = case
    found = [output_gradients(loaded, batches, NAMES, Activations(CPU, folder=tmp_path / "a"))]
    assert not caplog.messages
    needed = len(loaded.blocks) * hidden_bytes(loaded, batches)
    monkeypatch.setattr("qig.blockwise.activations.free_bytes", lambda: needed)
    found.append(output_gradients(loaded, batches, NAMES, Activations(CPU, folder=tmp_path / "a")))
    assert len(caplog.messages) == 1 and "wait on disk" in caplog.messages[0]
    assert not list((tmp_path / "a").rglob("*.safetensors"))  # each went as its block was done
    for here, there in zip(*found, strict=True):
        assert all(torch.equal(a, b) for name in NAMES for a, b in zip(here[name], there[name], strict=True))


def test_what_enters_a_block_is_counted_as_it_is(case):
    loaded, batches, _ = case
    streams = Streams(loaded, batches, Activations(CPU), with_quantized=False)
    assert hidden_bytes(loaded, batches) == sum(x.numel() * x.element_size() for x in streams.exact)


@pytest.mark.parametrize("balance", ["per_token", "per_modality"])
def test_ratio_floor_and_balance(case, balance):
    loaded, together, alone = case
    config = ModalityGradientSensitivity("modality_gradient", "modality", "corpus", "none", 0, balance)
    estimator = ModalityGradient(config)
    estimator.prepare(WholeModel(loaded, together, Activations(CPU)))

    gathered = {(name, kind): [[] for _ in loaded.blocks] for name in NAMES for kind in ("vision", "answer")}
    for batch in alone.values():
        kinds = batch.kinds[0]
        for block, gradients in enumerate(oracle_gradients(loaded, batch)):
            for name in NAMES:
                gathered[name, "vision"][block] += gradients[name][kinds == TokenKind.VISION].tolist()
                gathered[name, "answer"][block] += gradients[name][kinds == TokenKind.ANSWER].tolist()
    tokens = {kind: len(gathered[NAMES[0], kind][0]) for kind in ("vision", "answer")}
    for name in NAMES:
        ratios = [
            np.mean(vision) / np.mean(answer)
            for vision, answer in zip(gathered[name, "vision"], gathered[name, "answer"], strict=True)
        ]
        assert ratios[-1] == 0  # behind the last block's outputs no answer looks at a vision token
        floored = [max(ratio, np.median(ratios)) for ratio in ratios]
        assert estimator.ratios[name].tolist() == pytest.approx(floored, rel=1e-5)
        for site in loaded.architecture.sites:
            if site.block_output != name:
                continue
            for block in range(len(loaded.blocks)):
                kinds = [batch.kinds for batch in together]
                view = SiteView(block, 0, loaded.blocks[block], site, None, [], None, kinds, [])
                vision, answer = floored[block], 1.0
                if balance == "per_modality":
                    vision, answer = vision / tokens["vision"], answer / tokens["answer"]
                for value, kinds in zip(estimator.scores(view).values, view.kinds, strict=True):
                    expected = vision * (kinds == TokenKind.VISION) + answer * (kinds == TokenKind.ANSWER)
                    torch.testing.assert_close(value, expected.float(), rtol=1e-4, atol=0)


def test_the_floor_of_an_even_number_of_blocks_lies_between_the_middle_two():
    vision = {NAMES[0]: [4.0, 1.0, 3.0, 0.0], NAMES[1]: [0.5, 8.0, 2.0, 1.0]}
    kinds = torch.tensor([[TokenKind.VISION, TokenKind.ANSWER, TokenKind.VISION, TokenKind.PROMPT]])
    gradients = [{name: [torch.tensor([[ratio, 2.0, 3 * ratio, 9.0]])] for name, ratio in zip(vision, two, strict=True)}
                 for two in zip(*vision.values(), strict=True)]
    whole = SimpleNamespace(
        loaded=SimpleNamespace(blocks=gradients, architecture=SimpleNamespace(sites=LLAMA_SITES)),
        batches=[SimpleNamespace(kinds=kinds)], activations=SimpleNamespace(device=CPU), gradients=lambda: gradients,
    )  # fmt: skip
    config = ModalityGradientSensitivity("modality_gradient", "modality", "corpus", "none", 0, "per_token")
    estimator = ModalityGradient(config)
    estimator.prepare(whole)
    # The mean of r and 3r over 2 is r; medians are (1 + 3) / 2 and (1 + 2) / 2.
    assert estimator.ratios[NAMES[0]].tolist() == [4, 2, 3, 2]
    assert estimator.ratios[NAMES[1]].tolist() == [1.5, 8, 2, 1.5]
