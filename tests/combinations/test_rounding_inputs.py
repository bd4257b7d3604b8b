"""What a rounding method is given: the inputs of the folded linears in both streams, and the site's own weights."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file

from qig.blockwise.activations import Activations
from qig.blockwise.artefact import block_folder
from qig.blockwise.run import BlockPass
from qig.config.validation import resolve
from qig.models.architectures import LLAMA_SITES
from qig.rounding.second_order import Gptaq

CPU = torch.device("cpu")


@torch.no_grad()
def inputs_of(loaded, batches) -> dict[tuple[int, str], list[torch.Tensor]]:
    """What reaches every linear of the blocks in ordinary forward passes, and under ``.out`` what leaves it."""
    found: dict = {}

    def keep(key):
        def hook(_module, args, output):
            found.setdefault(key, []).append(args[0])
            found.setdefault((key[0], key[1] + ".out"), []).append(output)

        return hook

    handles = [
        module.register_forward_hook(keep((index, name)))
        for index, block in enumerate(loaded.blocks)
        for name, module in block.named_modules()
        if name.endswith("_proj")
    ]
    for batch in batches:
        loaded.model(**batch.inputs, use_cache=False)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("quant", ["w3a16", "w4a8"])
def test_both_streams_and_the_weights(compose, fresh_model, digit_samples, batches_of, tmp_path, monkeypatch, quant):
    loaded = fresh_model("tiny_llava_onevision")
    batches = batches_of(loaded, digit_samples[:3], 300)
    assert len(batches) > 1
    original = inputs_of(copy.deepcopy(loaded), batches)
    seen = []
    plain = Gptaq.round

    def recording(self, linears, setting, inputs):
        results = {name: [linear(x) for x in inputs.exact] for name, linear in linears.items()}
        seen.append((list(linears), results, inputs))
        return plain(self, linears, setting, inputs)

    monkeypatch.setattr(Gptaq, "round", recording)
    config = resolve(
        compose(
            "method=qig", "rounding=gptaq", f"quant={quant}", "sensitivity.reference=quantized",
            "equalization=smoothquant", "equalization.sites=[attn_in,attn_out,mlp_in,mlp_out]",
            "equalization.share_attn_out=true",
            "sensitivity.nodes=2", "sensitivity.max_nodes=2",
        )
    )  # fmt: skip
    BlockPass(loaded, batches, config, Activations(CPU), tmp_path).run()
    quantized = inputs_of(loaded, batches)

    rescaled = {site.producer for site in LLAMA_SITES}
    assert len(seen) == 2 * len(LLAMA_SITES)
    for number, (names, outputs, inputs) in enumerate(seen):
        index, site = divmod(number, len(LLAMA_SITES))
        site = LLAMA_SITES[site]
        assert tuple(names) == site.consumers
        findings = load_file(block_folder(tmp_path, index) / "findings.safetensors")
        assert float(findings[f"scale.{index}.{site.name}"].std()) > 0.01
        for name in names:
            for i, batch in enumerate(batches):
                real = batch.real
                torch.testing.assert_close(
                    inputs.quantized[i][real], quantized[index, name][i][real], rtol=1e-4, atol=1e-5
                )
                if name not in rescaled:  # the folded linear of its exact inputs gives the model's own outputs
                    expected = original[index, name + ".out"][i][real]
                    scale = float(expected.abs().max())
                    torch.testing.assert_close(outputs[name][i][real], expected, rtol=0, atol=1e-5 * scale)
        rows = {p: inputs.weights[i][r][b.real[r]] for i, b in enumerate(batches) for r, p in enumerate(b.order)}
        own = torch.cat([rows[position] for position in sorted(rows)])
        assert torch.equal(own, findings[f"block.{index}.{site.name}"])
        assert all((w[~b.real] == 0).all() for w, b in zip(inputs.weights, batches, strict=True))
