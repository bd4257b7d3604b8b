"""Token gradients against one autograd pass a sample through the model's loss, without hooks or padding."""

from __future__ import annotations

import torch
from torch import nn

from qig.blockwise.activations import Activations
from qig.blockwise.site import SiteView
from qig.config.schema import TokenGradientSensitivity
from qig.data.tokens import TokenKind
from qig.sensitivity.estimator import WholeModel
from qig.sensitivity.gradients import sft_loss
from qig.sensitivity.token_gradient import TokenGradient


class Shifted(nn.Module):
    """``linear(x) + shift``: the gradient at ``shift = 0`` is that at the linear's output."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear, self.shift = linear, None

    def forward(self, x):
        y = self.linear(x)
        self.shift = torch.zeros_like(y, requires_grad=True)
        return y + self.shift


def oracle(loaded, batch, half: str, name: str, index: int) -> torch.Tensor:
    """``mean_c |dL/dy|`` of one sample at ``half.name`` of a block, ``[tokens]``."""
    parent = loaded.blocks[index].get_submodule(half)
    probe = Shifted(getattr(parent, name))
    setattr(parent, name, probe)
    with torch.enable_grad():
        logits = loaded.model(**batch.inputs, use_cache=False).logits[0, :-1]
        loss = nn.functional.cross_entropy(logits, batch.labels[0, 1:])  # ignores -100; float64, as the model
        (gradient,) = torch.autograd.grad(loss, probe.shift)
    setattr(parent, name, probe.linear)
    return gradient[0].abs().mean(-1)


def test_every_site_on_every_architecture(fresh_model, digit_samples, batches_of, any_tiny):
    loaded = fresh_model(any_tiny)
    loaded.model.double()
    (padded,) = batches_of(loaded, digit_samples[:3], 10_000)
    estimator = TokenGradient(TokenGradientSensitivity("token_gradient", "token_special", "sample", "none", 0))
    estimator.prepare(WholeModel(loaded, [padded], Activations(torch.device("cpu"))))
    alone = {batch.ids[0]: batch for batch in batches_of(loaded, digit_samples[:3], 1)}
    for index in range(2):
        for site in loaded.architecture.sites:
            kinds = [padded.kinds]
            view = SiteView(index, 0, loaded.blocks[index], site, None, [], None, kinds, [padded.ids])
            (found,) = estimator.scores(view).values
            half, name = ("self_attn", "o_proj") if site.name.startswith("attn") else ("mlp", "down_proj")
            for row, sample in enumerate(padded.ids):
                expected = oracle(loaded, alone[sample], half, name, index)
                own = found[row][: len(expected)]
                assert float((own - expected).abs().max()) < 1e-5 * float(expected.max())
                assert (found[row][len(expected) :] == 0).all()
    vision = padded.kinds == TokenKind.VISION
    assert (found[vision] == 0).all()  # behind the last block's outputs no answer looks at a vision token


def first_scores(loaded, batches) -> torch.Tensor:
    """Of the one micro-batch, at the first place of the first block."""
    estimator = TokenGradient(TokenGradientSensitivity("token_gradient", "token_special", "sample", "none", 0))
    estimator.prepare(WholeModel(loaded, batches, Activations(torch.device("cpu"))))
    kinds, ids = [batches[0].kinds], [batches[0].ids]
    view = SiteView(0, 0, loaded.blocks[0], loaded.architecture.sites[0], None, [], None, kinds, ids)
    (found,) = estimator.scores(view).values
    return found


def test_the_means_of_16_bit_gradients_are_not_rounded_to_16_bits(fresh_model, digit_samples, batches_of):
    loaded = fresh_model("tiny_internvl")
    loaded.model.bfloat16()
    found = first_scores(loaded, batches_of(loaded, digit_samples[:1], 10_000))
    seen = found[found > 0]
    assert len(seen) > 20
    assert float((seen != seen.bfloat16().float()).float().mean()) > 0.5


def test_small_gradients_survive_float16(fresh_model, digit_samples, batches_of, monkeypatch):
    """A confident model's are smaller than float16's numbers, those of vision tokens first."""
    monkeypatch.setattr("qig.sensitivity.gradients.sft_loss", lambda *given: 1e-5 * sft_loss(*given))
    found = {}
    for dtype in (torch.float32, torch.float16):
        loaded = fresh_model("tiny_internvl")
        loaded.model.to(dtype)
        found[dtype] = first_scores(loaded, batches_of(loaded, digit_samples[:1], 10_000))
    assert float(found[torch.float32].max()) < 1e-6  # a dozen of float16's smallest number
    torch.testing.assert_close(found[torch.float16], found[torch.float32], rtol=0.1, atol=0)
