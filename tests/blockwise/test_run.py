"""The pass: what it leaves in the model and on disk, that it can be interrupted, and that it repeats itself."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import qig.blockwise.run as run_module
from conftest import TINY
from oracles import grid as oracle
from oracles.calls import block_inputs_and_outputs, logits_of
from qig.blockwise.activations import Activations
from qig.blockwise.block import BlockWork
from qig.blockwise.run import BlockPass
from qig.blockwise.streams import Streams
from qig.calibrate import _doubt_rank, quantize
from qig.data.calibration import collate, samples_of
from qig.equalization.equalizer import Scale
from qig.errors import ConfigError, ModelError, QigError
from qig.models.loading import load
from qig.quantization.grid import ActivationGrid
from qig.quantization.linear import FakeQuantLinear, QuantizedLinear
from qig.quantized import load_checkpoint
from qig.sensitivity.estimator import Scores
from qig.sensitivity.kept_gradients import RECORD as RECORD_OF_GRADIENTS
from qig.store import find_damage, write_json, write_manifest

CPU = torch.device("cpu")
SMOOTHQUANT = "method=smoothquant quant=w4a8"
METHODS = ["method=qig", "method=qig quant=w4a8", "method=mbq", "method=awq", SMOOTHQUANT, "method=rtn"]


def tensors(folder) -> dict[str, torch.Tensor]:
    """Everything that a pass wrote, by block and name."""
    return {
        f"{file.parent.name}/{name}": value.clone()  # the file is mapped, and may be damaged below
        for file in sorted((folder / "blocks").glob("*/*.safetensors"))
        for name, value in load_file(file).items()
    }


def computing(model) -> dict[str, torch.Tensor]:
    """Every weight and bias that the model computes with, dequantized ones among them."""
    named = {
        f"{name}.{part}": getattr(module, part, None)
        for name, module in model.named_modules()
        for part in ("weight", "bias")
    }
    return {name: value for name, value in named.items() if value is not None}


def assert_identical(one, other) -> None:
    assert one.keys() == other.keys() and one
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("overrides", METHODS)
def test_same_pass_twice_is_bit_identical(configured, passed, tmp_path, overrides):
    config = configured(*overrides.split())
    first, _ = passed(config, tmp_path / "one")
    second, _ = passed(config, tmp_path / "two")
    assert_identical(tensors(tmp_path / "one"), tensors(tmp_path / "two"))
    assert_identical(computing(first.model), computing(second.model))


def test_interrupted_pass_goes_on_and_ends_bit_identical(configured, passed, tmp_path, monkeypatch):
    config = configured("method=qig", "sensitivity.reference=quantized")
    whole, _ = passed(config, tmp_path / "whole")

    class Killed(BaseException):
        pass

    save = run_module.save_block

    def killed(folder, *args):
        if folder.name == "002":
            raise Killed
        save(folder, *args)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(run_module, "save_block", killed)
        passed(config, tmp_path / "parts")
    left = {p.name: (p / "block.json").stat().st_mtime_ns for p in (tmp_path / "parts/blocks").iterdir()}
    assert sorted(left) == ["000", "001"]
    resumed, records = passed(config, tmp_path / "parts")
    assert [record["sites"][0]["block"] for record in records] == [0, 1, 2]
    for name, time in left.items():  # loaded, not made again
        assert (tmp_path / "parts/blocks" / name / "block.json").stat().st_mtime_ns == time
    assert_identical(tensors(tmp_path / "whole"), tensors(tmp_path / "parts"))
    assert_identical(computing(whole.model), computing(resumed.model))


def test_seconds_of_a_resumed_calibration_are_those_of_all_attempts(configured, tmp_path):
    """Of the block that is found, and of gradients that another run has left."""
    config = configured("method=mbq")

    def gradients(build):
        if not (tmp_path / "gradients").is_dir():
            (tmp_path / "gradients").mkdir()
            build(tmp_path / "gradients")
        return tmp_path / "gradients"

    quantize(config, CPU, tmp_path / "one", gradients)
    record = tmp_path / "gradients" / RECORD_OF_GRADIENTS
    record.write_text(json.dumps(json.loads(record.read_text()) | {"seconds": 7000.0}))
    found = tmp_path / "two" / "blocks" / "000"
    shutil.copytree(tmp_path / "one" / "blocks" / "000", found)
    written = json.loads((found / "block.json").read_text())
    write_json(found / "block.json", written | {"seconds": {"search": 500.0, "rounding": 40.0}})
    write_manifest(found)
    quantize(config, CPU, tmp_path / "two", gradients)
    timings = json.loads((tmp_path / "two" / "quantization.json").read_text())["timings"]
    parts = [timings[name] for name in ("attribution", "capture", "search", "rounding", "propagation")]
    assert timings["search"] > 500 and timings["quantization"] >= sum(parts) > 7000


def test_what_makes_a_calibration_doubtful_is_told(configured, tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO")
    quantize(configured("method=qig", "sensitivity.reference=quantized"), CPU, tmp_path / "one")
    assert [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "qig.calibrate"] == [
        ("INFO", "qig: uniform weights at 1 of 9 sites: the reference equals the input")
    ]
    caplog.clear()
    quantize(configured("method=gptq", "calibration.samples=1"), CPU, tmp_path / "two")
    few = r"WARNING .*rounding=gptq: \d\d calibration tokens with weight for linears of up to \d{3} inputs"
    assert re.search(few, caplog.text)
    caplog.clear()
    monkeypatch.setattr("qig.sensitivity.attention.AttentionReceived.scores", lambda _, view: Scores(
        [torch.zeros(kinds.shape) for kinds in view.kinds]))  # fmt: skip
    quantize(configured("method=awq", "sensitivity=attention"), CPU, tmp_path / "three")
    assert re.search("WARNING .*attention: uniform weights at 9 of 9 sites: 3 samples without any score", caplog.text)


@pytest.mark.parametrize(("words", "tokens"), [((), "all"), (("sensitivity.granularity=token",), "no special"),
                                               (("sensitivity=modality_gradient",), "vision and answer")])  # fmt: skip
def test_tokens_without_weight_fill_no_second_moments(configured, digit_samples, batches_of, words, tokens, caplog):
    config = configured("method=gptq", *words)
    loaded = load(config.model, CPU)
    batches = batches_of(loaded, digit_samples[:1])
    count = Counter(torch.cat([b.kinds.flatten() for b in batches]).tolist())
    count = {"all": sum(count[k] for k in (1, 2, 3, 4)), "no special": sum(count[k] for k in (1, 2, 3)),
             "vision and answer": count[2] + count[3]}[tokens]  # fmt: skip
    _doubt_rank(loaded, batches, config)
    assert f"rounding=gptq: {count} calibration tokens with weight for linears" in caplog.text


@pytest.mark.parametrize("words", [("equalization.sites=[attn_out]",), ("quant.linears=self_attn.o_proj",)])
def test_a_method_that_would_scale_nothing_is_not_run_as_its_rounding_alone(configured, tmp_path, words):
    with pytest.raises(ConfigError, match=r"none of these inputs can be scaled at block 0; those that can be: .*share"):
        quantize(configured("method=smoothquant", *words), CPU, tmp_path)


def test_in_16_bits_inputs_are_divided_by_the_scale_that_the_weights_took(configured, passed, tmp_path, monkeypatch):
    seen, whole = [], BlockWork._inputs

    def watched(self, site):
        found, scale = whole(self, site), self._scales.get(site.name)
        if scale is not None:
            seen.append((found.exact[0], self._calls[site.name][0].x, scale.value))
        return found

    monkeypatch.setattr(BlockWork, "_inputs", watched)
    passed(configured("method=awq", "rounding=gptq", "rounding.stream=exact", "model.dtype=bfloat16"), tmp_path)
    assert len(seen) == 9 and all(x.dtype == torch.bfloat16 for _, x, _ in seen)
    for found, x, scale in seen:
        torch.testing.assert_close(found.double(), x.double() / scale.double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("value", [-1.0, 0.0])
def test_a_scale_that_is_not_positive_is_refused(configured, tmp_path, monkeypatch, value):
    monkeypatch.setattr("qig.equalization.smoothquant.SmoothQuant.scale", lambda _, view, weights: Scale(
        torch.full((view.calls[0].x.shape[-1],), value)))  # fmt: skip
    with pytest.raises(QigError, match=rf"block 0, attn_in: a channel's scale is {value:g}; expected more than 0"):
        quantize(configured("method=smoothquant"), CPU, tmp_path)


@pytest.mark.parametrize("overrides", ["method=qig quant=w4a8", "method=gptq_qig", "method=vlmq"])
def test_where_activations_wait_changes_no_bit(configured, tmp_path, overrides):
    for place in ("device", "disk"):
        quantize(configured(*overrides.split(), f"memory.activations={place}"), CPU, tmp_path / place)
    assert_identical(tensors(tmp_path / "device"), tensors(tmp_path / "disk"))
    device, disk = (sorted(p.name for p in (tmp_path / place).iterdir()) for place in ("device", "disk"))
    assert device == disk


@pytest.fixture(scope="module")
def whole(configured, passed, tmp_path_factory):
    """A stage that no test changes."""
    passed(configured("method=awq"), folder := tmp_path_factory.mktemp("whole"))
    return folder


@pytest.mark.parametrize("victim", ["weights.safetensors", "findings.safetensors", "block.json", "MANIFEST.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damaged_block_is_made_again(configured, passed, whole, tmp_path, victim, damage):
    config = configured("method=awq")
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    before, file = tensors(tmp_path), tmp_path / "blocks/001" / victim
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.unlink()
    loaded, _ = passed(config, tmp_path)
    assert_identical(before, tensors(tmp_path))
    assert find_damage(tmp_path / "blocks/001") is None
    assert all(isinstance(block.mlp.up_proj, FakeQuantLinear) for block in loaded.blocks)


@pytest.mark.parametrize("quant", ["w3a16", "w4a8"])
def test_streams_end_with_the_two_models(configured, passed, digit_samples, batches_of, tmp_path, monkeypatch, quant):
    kept = []

    class Kept(Streams):
        def __init__(self, *args):
            super().__init__(*args)
            kept.append(self)

    monkeypatch.setattr(run_module, "Streams", Kept)
    config = configured("method=qig", f"quant={quant}", "sensitivity.reference=quantized")
    quantized, _ = passed(config, tmp_path)
    original = load(config.model, CPU)
    for i, batch in enumerate(batches_of(original, digit_samples[:3])):
        assert torch.equal(kept[0].exact[i], block_inputs_and_outputs(original, batch)[1][-1])
        assert torch.equal(kept[0].quantized[i], block_inputs_and_outputs(quantized, batch)[1][-1])


@pytest.mark.parametrize("overrides", ["method=qig", "method=awq quant=w4a8", SMOOTHQUANT])
def test_integers_are_those_of_the_folded_weights(configured, passed, tmp_path, overrides):
    """The scales on disk, applied to the original weights in float64, give the integers on disk."""
    config = configured(*overrides.split())
    passed(config, tmp_path)
    original, found = load(config.model, CPU), tensors(tmp_path)
    grid = config.quant.weights
    for index, block in enumerate(original.blocks):
        scale = {
            site: found.get(f"{index:03d}/scale.{index}.{site}", torch.ones(1)).double()
            for site in ("attn_in", "mlp_in", "mlp_out")
        }
        assert float(scale["mlp_in"].std()) > 0.01
        columns = {"q": "attn_in", "k": "attn_in", "v": "attn_in", "gate": "mlp_in", "up": "mlp_in", "down": "mlp_out"}
        for name, linear in block.named_modules():
            if not isinstance(linear, torch.nn.Linear):
                continue
            short = name.rpartition(".")[2].removesuffix("_proj")
            weight = linear.weight.double() * scale.get(columns.get(short), torch.ones(1))
            if short == "up":
                weight = weight / scale["mlp_out"][:, None]
            of = oracle.symmetric if grid.symmetric else oracle.asymmetric
            integers, scales, *_ = of(weight.numpy(), grid.bits, grid.group_size)
            stored = found[f"{index:03d}/{name}.integers"].numpy()
            assert (stored != integers).mean() < 1e-3  # float32 against float64 at ties
            np.testing.assert_allclose(found[f"{index:03d}/{name}.scale"].numpy(), scales, rtol=1e-5)
        norm = found[f"{index:03d}/input_layernorm.weight"].double()
        torch.testing.assert_close(norm, block.input_layernorm.weight.double() / scale["attn_in"], rtol=1e-5, atol=0)


def test_eight_bits_change_little_anywhere(configured, passed, digit_samples, batches_of, tmp_path, any_tiny):
    """Scales that were folded wrongly would change the logits beyond recognition."""
    config = configured("method=qig", "quant.weights.bits=8", model=any_tiny)
    loaded, _ = passed(config, tmp_path)
    original = load(config.model, CPU)
    batches = batches_of(original, digit_samples[4:])
    for was, now, batch in zip(logits_of(original, batches), logits_of(loaded, batches), batches, strict=True):
        assert float((was - now)[batch.real].norm()) < 0.05 * float(was[batch.real].norm())
        assert not torch.equal(was, now)


@pytest.mark.parametrize("quant", ["w3a16", "w4a8"])
def test_rtn_is_direct_quantization_and_touches_nothing_else(configured, passed, tmp_path, quant):
    config = configured("method=rtn", f"quant={quant}")
    loaded, records = passed(config, tmp_path)
    original, grid = load(config.model, CPU), config.quant.weights
    quantized = {name: m for name, m in loaded.model.named_modules() if isinstance(m, QuantizedLinear)}
    assert len(quantized) == 3 * 7
    for name, layer in quantized.items():
        weight = original.model.get_submodule(name).weight.numpy()
        expected = oracle.fake_weight(weight, grid.bits, grid.symmetric, grid.group_size)
        np.testing.assert_allclose(layer.weight.numpy(), expected, rtol=1e-6, atol=1e-9)
        assert layer.activations == (ActivationGrid(8) if quant == "w4a8" else None)
        assert layer.scale.shape == (weight.shape[0], 1 if quant == "w4a8" else weight.shape[1] // 128)
    rest = {name: p for name, p in original.model.state_dict().items() if name.rpartition(".")[0] not in quantized}
    assert any("visual" in name for name in rest) and any("norm" in name for name in rest)
    for name, value in rest.items():
        assert torch.equal(value, loaded.model.state_dict()[name])
    for name, layer in quantized.items():
        bias = original.model.get_submodule(name).bias
        assert (bias is None) == (layer.bias is None) and (bias is None or torch.equal(bias, layer.bias))
    assert all(record["sites"] == [] for record in records)


def test_integer_activations(configured, passed, digit_samples, batches_of, tmp_path):
    config = configured("method=qig", "quant=w4a8")
    loaded, records = passed(config, tmp_path)
    for name, value in tensors(tmp_path).items():
        assert not name.endswith("zero_point")
        assert not name.endswith("integers") or (value.dtype == torch.int8 and int(value.abs().max()) <= 8)
    assert all(site["fallback"] is None for record in records for site in record["sites"])
    for logits in logits_of(loaded, batches_of(loaded, digit_samples)):
        assert torch.isfinite(logits).all()


def test_records_say_what_was_searched_and_how(configured, passed, tmp_path):
    config = configured("method=qig", "sensitivity.reference=quantized")
    _, records = passed(config, tmp_path)
    sites = [site for record in records for site in record["sites"]]
    assert [(s["block"], s["site"]) for s in sites] == [
        (block, site) for block in range(3) for site in ("attn_in", "mlp_in", "mlp_out")  # grouped queries: no attn_out
    ]
    assert sites[0]["fallback"] == "the reference equals the input"  # nothing is quantized before the first site
    assert all(s["fallback"] is None for s in sites[1:])
    for site in sites:
        assert site["exponents"] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
        assert site["exponent"] == site["exponents"][int(np.argmin(site["losses"]))]
    assert {s["nodes"] for s in sites if s["site"] == "mlp_out"} == {0}
    assert all(s["completeness"] < 0.01 for s in sites if s["site"] == "mlp_out")


def test_findings_have_the_order_of_the_calibration_set(configured, passed, digit_samples, batches_of, tmp_path):
    config = configured("method=mbq")
    loaded, _ = passed(config, tmp_path)
    found = tensors(tmp_path)["000/block.0.mlp_in"]
    alone = {batch.ids[0]: batch for batch in batches_of(loaded, digit_samples[:3], tokens_per_batch=1)}
    kinds = torch.cat([alone[sample.id].kinds[0] for sample in digit_samples[:3]])
    assert found.shape == kinds.shape
    assert len(found[kinds == 2].unique()) == len(found[kinds == 3].unique()) == 1  # vision, answer
    assert (found[(kinds != 2) & (kinds != 3)] == 0).all()


@pytest.mark.parametrize(("model", "quant"), [(TINY[0], "w3a16"), *((name, "w4a8") for name in TINY)])
def test_reloaded_model_is_the_one_in_memory(configured, digit_samples, batches_of, tmp_path, model, quant):
    config = configured("method=qig", f"quant={quant}", model=model)
    quantize(config, CPU, tmp_path / "stage")
    loaded = load(config.model, CPU)
    batches = collate(samples_of(config.calibration), loaded.processor, loaded.model, loaded.image_token_ids, 300)
    BlockPass(loaded, batches, config, Activations(CPU), tmp_path / "memory").run()
    assert_identical(tensors(tmp_path / "stage"), tensors(tmp_path / "memory"))  # opened, and whole in memory
    reloaded = load_checkpoint(tmp_path / "stage", CPU)
    batches = batches_of(loaded, digit_samples[4:])
    for was, now in zip(logits_of(loaded, batches), logits_of(reloaded, batches), strict=True):
        assert torch.equal(was, now)
    assert_identical(computing(loaded.model), computing(reloaded.model))


def test_incomplete_stage_is_a_model_error(configured, tmp_path):
    config = configured("method=rtn")
    quantize(config, CPU, tmp_path)
    shutil.rmtree(tmp_path / "blocks/001")
    with pytest.raises(ModelError, match=r"blocks.001 is absent or damaged"):
        load_checkpoint(tmp_path, CPU)


def test_stage_that_does_not_say_what_it_is(tmp_path):
    (tmp_path / "quantization.json").write_text('{"model": {}}')
    with pytest.raises(ModelError, match="lacks checkpoint_sha256, quant"):
        load_checkpoint(tmp_path, CPU)


def test_stage_of_another_checkpoint_is_refused(configured, saved_model, tmp_path):
    """The blocks fit only the checkpoint that they were made from: the rest of its weights is not in the stage."""
    config = configured("method=rtn")
    quantize(config, CPU, tmp_path)
    record = json.loads((tmp_path / "quantization.json").read_text())
    record["model"]["path"] = str(saved_model("tiny_internvl"))
    (tmp_path / "quantization.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match="was made from another checkpoint"):
        load_checkpoint(tmp_path, CPU)


def test_sensitivity_file_belongs_to_tokens_and_samples(configured, digit_samples, tmp_path):
    config = configured("method=qig")
    quantize(config, CPU, tmp_path)
    found = load_file(tmp_path / "sensitivity.safetensors")
    names = [f"block.{b}.{s}" for b in range(3) for s in ("attn_in", "mlp_in", "mlp_out")]
    assert sorted(found) == sorted([*names, "kinds", "sample"])
    for name in names:
        for sample in range(3):
            assert float(found[name][found["sample"] == sample].sum()) == pytest.approx(1, rel=1e-5)
    assert (found["kinds"] != 0).all()
    assert sorted(load_file(tmp_path / "scales.safetensors")) == sorted(n.replace("block", "scale") for n in names)
