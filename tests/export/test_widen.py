"""``qig-export --widen``: the same integers in a wider container, and the same weights for whoever unpacks them."""

from __future__ import annotations

import json

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.pack_quantized import unpack_from_int32
from safetensors.torch import load_file

from export.load_alone import logits_of
from qig.errors import ConfigError
from qig.export.__main__ import main
from qig.export.kernels import exported_scheme
from qig.export.runtimes import hint
from qig.export.scheme import scheme_of
from qig.export.tensors import compressed
from qig.quantization.grid import WeightGrid, quantize_weight
from qig.quantized import load_checkpoint
from qig.store import write_manifest

MODEL = "tiny_llava_onevision"
CASES = [("w2a16", 4), ("w3a16", 4), ("w4a8", 8)]


def quant(bits, symmetric, group, activations=None):
    weights = {"bits": bits, "symmetric": symmetric, "group_size": group}
    return {"name": "test", "weights": weights, "activations": activations}


@pytest.fixture(scope="module")
def widened(exported, tmp_path_factory):
    """``widened(setting)``: the narrow export, and the folder with the same run's wide one."""
    made = {}

    def make(setting):
        if setting not in made:
            export = exported(MODEL, setting)
            folder = tmp_path_factory.mktemp("wide") / setting
            assert main([str(export.run), "--to", str(folder), "--widen"]) == 0
            made[setting] = export, folder
        return made[setting]

    return make


def linears(folder):
    """The quantized linears' tensors, by the checkpoint's names."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        for name, value in load_file(file).items():
            linear, _, part = name.rpartition(".")
            found.setdefault(linear, {})[part] = value
    return {name: parts for name, parts in found.items() if "weight_scale" in parts}


def decoded(folder):
    """The weights that compressed-tensors makes of a folder, by its own reading of ``config.json``."""
    scheme = exported_scheme(folder)
    library = BaseCompressor.get_value_from_registry(scheme.format)
    return {name: library.decompress(dict(parts), scheme)["weight"] for name, parts in linears(folder).items()}


@pytest.mark.parametrize(("bits", "container"), [(2, 4), (3, 4), (5, 8), (6, 8), (7, 8)])
@pytest.mark.parametrize("group", [32, 40, None])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_library_finds_the_same_integers_in_a_wider_container(bits, container, group, symmetric):
    weight = torch.randn(37, 160) * torch.logspace(-6, 3, 37).unsqueeze(1)
    quantized = quantize_weight(weight, WeightGrid(bits, symmetric, group))
    scheme = scheme_of(quant(bits, symmetric, group), widen=True)
    assert scheme.weights.num_bits == container
    packed = compressed(quantized, scheme)
    integers = unpack_from_int32(packed["weight_packed"], container, weight.shape).int()
    assert torch.equal(integers + (0 if symmetric else 2 ** (container - 1)), quantized.integers.int())
    back = BaseCompressor.get_value_from_registry(scheme.format).decompress(packed, scheme)
    assert torch.equal(back["weight"], quantized.dequantize())


@pytest.mark.parametrize(("setting", "container"), CASES)
def test_decoded_weights_are_the_evaluated_ones_bit_by_bit(setting, container, widened):
    export, folder = widened(setting)
    assert exported_scheme(folder).weights.num_bits == container
    narrow, wide = decoded(export.folder), decoded(folder)
    model = load_checkpoint(export.run, torch.device("cpu")).model
    evaluated = {
        name.partition("layers.")[2]: module.weight
        for name, module in model.named_modules()
        if "layers." in name and "vision" not in name and hasattr(module, "weight")
    }
    assert wide.keys() == narrow.keys() and wide
    for name, weight in wide.items():
        assert torch.equal(weight, narrow[name])
        assert torch.equal(weight, evaluated[name.partition("layers.")[2]])


@pytest.mark.parametrize(("setting", "container"), CASES)
def test_only_containers_differ(setting, container, widened):
    export, folder = widened(setting)
    bits = int(setting[1])
    narrow, wide = linears(export.folder), linears(folder)
    for name, parts in wide.items():
        assert parts.keys() == narrow[name].keys()
        assert torch.equal(parts["weight_scale"], narrow[name]["weight_scale"])
        if setting == "w4a8":  # a byte each, before and after
            assert torch.equal(parts["weight"], narrow[name]["weight"])
            assert parts["weight"].abs().max() <= 8
            continue
        for part, shape, packed_dim in (
            ("weight_packed", tuple(parts["weight_shape"].tolist()), 1),
            ("weight_zero_point", parts["weight_scale"].shape, 0),
        ):
            was = unpack_from_int32(narrow[name][part], bits, shape, packed_dim=packed_dim).int() + 2 ** (bits - 1)
            now = unpack_from_int32(parts[part], container, shape, packed_dim=packed_dim).int() + 2 ** (container - 1)
            assert torch.equal(now, was)
        assert parts["weight_packed"].nbytes > narrow[name]["weight_packed"].nbytes


@pytest.mark.parametrize("setting", ["w2a16", "w3a16"])
def test_transformers_computes_the_evaluated_logits(setting, widened, evaluated, picture):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    export, folder = widened(setting)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    assert torch.equal(logits_of(model, AutoProcessor.from_pretrained(folder), str(picture)), evaluated(export))


@pytest.mark.parametrize(("setting", "container"), CASES)
def test_card_and_configuration_name_both_widths(setting, container, widened):
    export, folder = widened(setting)
    bits = int(setting[1])
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    (group,) = config["config_groups"].values()
    assert (group["weights"]["num_bits"], config["integer_bits"]) == (container, bits)
    assert json.loads((folder / "qig_export.json").read_text())["bits"] == {"integers": bits, "container": container}
    card = (folder / "README.md").read_text()
    assert f"the integers use {bits} bits and are stored in {container}" in card
    assert f"kernel (Marlin) for asymmetric {container}-bit" in card or "for 8-bit weights with 8-bit acti" in card
    assert "integer_bits" not in (export.folder / "config.json").read_text()
    assert "Widened" not in (export.folder / "README.md").read_text()


def test_integer_activations_stay_dynamic_per_token(widened):
    scheme = exported_scheme(widened("w4a8")[1])
    assert scheme.weights.strategy == "channel" and scheme.weights.symmetric
    activations = scheme.input_activations
    assert (activations.num_bits, activations.strategy, activations.dynamic) == (8, "token", True)


@pytest.mark.parametrize("setting", ["w4a16", "w8a8"])
def test_where_nothing_is_to_widen_one_message_says_so(setting, exported, tmp_path, capsys):
    export = exported("tiny_qwen2_vl", setting)
    capsys.readouterr()
    assert main([str(export.run), "--to", str(tmp_path / "out"), "--widen"]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert f"quant={setting} (" in said.err and "nothing that --widen could widen" in said.err
    assert not list(tmp_path.iterdir())


def test_groups_beside_integer_activations_cannot_be_widened():
    with pytest.raises(ConfigError, match=r"groups of 128, 8-bit activations.* has nothing that --widen"):
        scheme_of(quant(4, True, 128, {"bits": 8}), widen=True)
    with pytest.raises(ConfigError, match="cannot be exported"):
        scheme_of(quant(4, True, None, {"bits": 4}), widen=True)


@pytest.mark.parametrize("setting", [setting for setting, _ in CASES])
def test_a_widened_export_is_verified_as_what_it_says_it_is(setting, widened, tmp_path, capsys):
    export, folder = widened(setting)
    arguments = [str(export.run), "--to", str(folder), "--verify"]
    assert main(arguments) == 0
    record = folder / "qig_export.json"
    whole = record.read_text()
    try:
        told = json.loads(whole)
        told["bits"]["container"] = told["bits"]["integers"]
        record.write_text(json.dumps(told))
        write_manifest(folder)
        capsys.readouterr()
        assert main(arguments) == 1
        assert "is not the export of run" in capsys.readouterr().err
    finally:
        record.write_text(whole)
        write_manifest(folder)


def test_a_run_with_nothing_to_widen_is_not_verified_by_anothers_widened_export(widened, exported, capsys):
    other = exported(MODEL, "w4a16")
    assert main([str(other.run), "--to", str(widened("w3a16")[1]), "--verify"]) == 1
    assert "is not the export of run" in capsys.readouterr().err


def test_an_export_that_few_runtimes_take_says_so_in_one_line(exported, tmp_path, capsys):
    for setting in ("w3a16", "w4a8", "w4a16", "w8a8"):
        export = exported("tiny_qwen2_vl", setting)
        for more in ([], ["--widen"]):
            capsys.readouterr()
            done = main([str(export.run), "--to", str(tmp_path / f"{setting}{len(more)}"), *more])
            notes = [line for line in capsys.readouterr().out.splitlines() if "--widen" in line]
            assert len(notes) == (setting in ("w3a16", "w4a8") and not more)
            assert done == (setting in ("w4a16", "w8a8") and bool(more))


def test_the_line_says_what_takes_which_width():
    said = hint(quant(3, False, 128))
    assert "newer vLLM alone takes asymmetric 3-bit weights" in said and "in 4 bits each" in said
    assert "none for NVIDIA cards was confirmed" in hint(quant(4, True, None, {"bits": 8}))
    assert "none for groups of 40 was confirmed" in hint(quant(3, False, 40))
    assert "for Hopper cards" in hint(quant(6, False, 128))
    assert hint(quant(4, True, 128, {"bits": 8})) is hint(quant(4, False, 128)) is None
