"""Every estimator in a whole pass: weights do not depend on the company of samples; and brute-force checks."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from qig.blockwise.activations import Activations
from qig.blockwise.run import BlockPass
from qig.config.validation import resolve
from qig.data.tokens import TokenKind
from qig.models.loading import load
from qig.sensitivity.estimator import WholeModel

CPU = torch.device("cpu")
QWEN, LLAVA, INTERN = "tiny_qwen2_vl", "tiny_llava_onevision", "tiny_internvl"
CASES = [(QWEN, kind) for kind in ("qig", "token_gradient", "attention", "perturbation", "modality_gradient")]
CASES += [(name, kind) for name in (LLAVA, INTERN) for kind in ("attention", "perturbation")]


@pytest.fixture(scope="module")
def folder_of(fresh_model, tmp_path_factory):
    made = {}

    def make(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            loaded = fresh_model(name, blocks=2)
            loaded.model.save_pretrained(made[name])
            loaded.processor.save_pretrained(made[name])
        return made[name]

    return make


def weights_found(config, samples, batches_of, budget, folder) -> dict[str, torch.Tensor]:
    loaded = load(config.model, CPU)
    BlockPass(loaded, batches_of(loaded, samples, tokens_per_batch=budget), config, Activations(CPU), folder).run()
    files = sorted((folder / "blocks").glob("*/findings.safetensors"))
    return {name: value for file in files for name, value in load_file(file).items() if name.startswith("block.")}


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_weights_do_not_depend_on_micro_batches(compose, folder_of, digit_samples, batches_of, tmp_path, name, kind):
    """Three samples alone, and the same three padded together (three, as many as Qwen2-VL has position axes)."""
    few = ["equalization.points=1", "tracking=none", "model.outliers.sigma=0.5"]
    few += ["sensitivity.nodes=2", "sensitivity.max_nodes=2"] if kind == "qig" else []
    path = f"model.path={folder_of(name)}"
    config = resolve(compose(f"model={name}", path, "method=awq", f"sensitivity={kind}", *few))
    alone = weights_found(config, digit_samples[:3], batches_of, 1, tmp_path / "alone")
    together = weights_found(config, digit_samples[:3], batches_of, 10_000, tmp_path / "together")
    assert alone.keys() == together.keys() and len(alone) == 6
    for name, value in alone.items():
        torch.testing.assert_close(value, together[name], rtol=2e-3, atol=1e-6)
    assert any(float(value.std()) > 0 for value in alone.values())


def test_attention_received_is_a_mean(fresh_model, digit_samples, batches_of, any_tiny, compose):
    from qig.sensitivity.attention import AttentionReceived

    loaded = fresh_model(any_tiny)
    estimator = AttentionReceived(compose("sensitivity=attention").sensitivity)
    batches = batches_of(loaded, digit_samples[:3], tokens_per_batch=10_000)
    estimator.prepare(WholeModel(loaded, batches, Activations(CPU)))
    for batch in batches_of(loaded, digit_samples[:3], 1):
        row = batches[0].ids.index(batch.ids[0])
        loaded.model.set_attn_implementation("eager")
        with torch.no_grad():
            probabilities = loaded.model(**batch.inputs, use_cache=False, output_attentions=True).attentions
        loaded.model.set_attn_implementation("sdpa")
        for block, p in enumerate(probabilities):
            expected = torch.stack([p[0, :, :, key].mean() for key in range(p.shape[-1])])
            found = estimator.received[block][0][row]
            torch.testing.assert_close(found[: len(expected)], expected, rtol=1e-4, atol=1e-6)
            assert (found[len(expected) :] == 0).all()


@pytest.mark.parametrize("site", ["attn_in", "mlp_in", "mlp_out"])
def test_perturbation_is_leave_one_out(toys, compose, site):
    from oracles import toy
    from qig.sensitivity.perturbation import Perturbation

    config = compose("sensitivity=perturbation", "sensitivity.rows_per_batch=3").sensitivity
    sites = toys()
    scores = Perturbation(config).scores(sites.view(site)).values
    f, _ = toy.FUNCTIONS[site]
    for batch, row, x, x_q in sites.samples(site):
        exact = f(x, sites.weights)
        for token in range(len(x)):
            changed = x.clone()
            changed[token] = x_q[token]
            expected = float((f(changed, sites.weights) - exact).abs().mean(-1).sum())
            assert float(scores[batch][row, token]) == pytest.approx(expected, rel=1e-4)


def test_permuted_control_keeps_each_samples_weights_and_moves_them(compose):
    from qig.sensitivity.granularity import permuted

    kinds = torch.full((2, 40), int(TokenKind.ANSWER), dtype=torch.uint8)
    kinds[1, 25:] = TokenKind.PADDING
    values = torch.rand(2, 40, generator=torch.Generator().manual_seed(0)) * (kinds != 0)
    found = permuted(values, kinds, ["a", "b"])
    assert (found[1, 25:] == 0).all()
    for row, length in enumerate((40, 25)):
        assert torch.equal(found[row, :length].sort().values, values[row, :length].sort().values)
        assert not torch.equal(found[row, :length], values[row, :length])
    assert torch.equal(permuted(values[1:, :25], kinds[1:, :25], ["b"])[0], found[1, :25])  # the name decides
    assert not torch.equal(permuted(values[1:], kinds[1:], ["c"])[0], found[1])
