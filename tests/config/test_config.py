"""Every YAML composes, mistakes are refused with their substance, and identities see exactly what matters."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re

import pytest
from hydra.errors import HydraException
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qig.config import conf_dir, identity, schema, sources
from qig.config.nested import split_by_share
from qig.config.recorded import recorded_config
from qig.config.validation import baseline, needs_calibration, needs_gradients, resolve
from qig.errors import ConfigError
from qig.models.architectures import LLAMA_SITES

CONF = conf_dir()
GROUPS = sorted(
    (folder.name, file.stem)
    for folder in CONF.iterdir()
    if folder.is_dir() and folder.name != "experiment"
    for file in folder.glob("*.yaml")
)
METHODS = sorted(file.stem for file in (CONF / "method").glob("*.yaml"))
QUANTS = sorted(file.stem for file in (CONF / "quant").glob("*.yaml"))
MODELS = ("tiny_qwen2_vl", "tiny_llava_onevision", "tiny_internvl")

COCO = ("path", "image_folder")
NEEDED = {
    ("model", "hf"): ["model.path"],
    ("model", "hf_causal_lm"): ["model.path"],
    ("calibration", "sharegpt4v_coco"): [f"calibration.{key}" for key in COCO],
    ("calibration", "hf"): ["calibration.path"],
    ("calibration", "infovqa"): ["calibration.path"],
    ("calibration", "pile"): ["calibration.path"],
    ("calibration", "mixture"): [*(f"calibration.parts.captions.{key}" for key in COCO), "calibration.parts.ocr.path"],
    ("calibration", "few_shot"): [f"calibration.of.{key}" for key in COCO],
    ("calibration", "interleaved"): [*(f"calibration.of.{key}" for key in COCO), "calibration.text.path"],
}


def needed(group: str, choice: str) -> list[str]:
    """Values that a choice leaves to the user."""
    return [f"{key}=/somewhere" for key in NEEDED.get((group, choice), ())]


def test_groups_are_found():
    assert {"model", "quant", "method", "sensitivity", "equalization", "rounding"} <= {group for group, _ in GROUPS}
    assert {"rtn", "awq", "mbq", "qig", "smoothquant", "none"} <= set(METHODS)


@pytest.mark.parametrize(("group", "choice"), GROUPS, ids=["/".join(pair) for pair in GROUPS])
def test_every_choice_composes_and_leaves_nothing_missing(compose, group, choice):
    config = compose(f"{group}={choice}", *needed(group, choice))
    assert isinstance(config, schema.Config)
    missing = [name for name, value in flattened(dataclasses.asdict(config)) if value == MISSING]
    assert missing == []


def through_json(config) -> dict:
    record = {"id": "r", "config": dataclasses.asdict(config), "environment": {"git": {"commit": "c0ffee"}}}
    return json.loads(json.dumps(record))


def same(config) -> bool:
    again = recorded_config(through_json(config))
    typed = all(type(getattr(again, name)) is type(getattr(config, name)) for name in ("sensitivity", "calibration"))
    pairs = ((again, config), (resolve(again), resolve(config)))
    return typed and all(dataclasses.asdict(one) == dataclasses.asdict(other) for one, other in pairs)


@pytest.mark.parametrize(("group", "choice"), GROUPS, ids=["/".join(pair) for pair in GROUPS])
def test_every_choice_comes_back_as_it_was(compose, group, choice):
    try:
        config = resolve(compose(f"{group}={choice}", *needed(group, choice)))
    except ConfigError:
        pytest.skip("cannot be run with the defaults of the other groups")
    assert same(config)


@pytest.mark.parametrize("model", MODELS)
def test_methods_and_quants_resolve(compose, model):
    chosen = compose(f"model={model}").model
    methods = {method: compose(f"method={method}") for method in METHODS}
    quants = {quant: compose(f"quant={quant}").quant for quant in QUANTS}
    for method, quant in itertools.product(METHODS, QUANTS):
        config = dataclasses.replace(methods[method], model=chosen, quant=quants[quant])
        if config.rounding.kind == "none" and config.quant.weights is not None:
            with pytest.raises(ConfigError, match="rounding=none"):
                resolve(config)
            continue
        try:
            resolved = resolve(config)
        except ConfigError as error:  # a combination may be illegal, but must say why
            pytest.fail(f"{method} {quant}: {error}")
        assert "auto" not in [value for name, value in flattened(dataclasses.asdict(resolved)) if name != "device"]
        again = resolve(resolved)
        assert again == resolved
        assert (quant == "fp16") == (resolved.method == "none")


def flattened(value, prefix=""):
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from flattened(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def test_schemas_have_no_defaults():
    """Values live in conf/ alone: a default in a schema would be a second place."""
    classes = [c for c in vars(schema).values() if dataclasses.is_dataclass(c)]
    assert len(classes) > 10
    for cls in classes:
        for field in dataclasses.fields(cls):
            where = f"{cls.__name__}.{field.name}"
            assert field.default == MISSING and field.default_factory is dataclasses.MISSING, where


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("quant.wieghts=null", "wieghts"),
        ("sensitivity.node=4", "node"),
        ("nothing=1", "nothing"),
        ("method=qgi", "qgi"),
        ("calibration.samples=many", "many"),
        ("sensitivity.nodes=1.5", "1.5"),
        ("sensitivity.quadrature=simpson", "simpson"),
        ("equalization.loss=huber", "huber"),
        ("model.dtype=float8", "float8"),
        ("equalization.sites=attn_in", "attn_in"),
        ("evaluation.nll=perhaps", "perhaps"),
    ],
)
def test_wrong_keys_and_types_are_refused(compose, override, said):
    with pytest.raises((HydraException, OmegaConfBaseException)) as told:
        compose(override)
    message = str(told.value) + str(told.value.__cause__)
    assert said in message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rounding=none", "quant=w4a8"], r"rounding=none keeps weights in 16 bits, but quant=w4a8 asks for 4-bit"),
        (["sensitivity=modality_gradient", "sensitivity.granularity=token"], r"granularity.*(modality|token)"),
        (["equalization.sites=[attn_in,mlp_inn]"], r"unknown equalization site 'mlp_inn'.*did you mean 'mlp_in'"),
        (["calibration.samples=0"], r"calibration\.samples=0: expected 1 or more"),
        (["calibration.tokens_per_batch=0"], r"calibration\.tokens_per_batch=0"),
        (["calibration.seed=-1"], r"calibration\.seed=-1: expected 0 or more"),
        (["calibration.max_skipped_share=1"], r"calibration\.max_skipped_share=1"),
        (["calibration=pile", "calibration.path=x", "calibration.max_tokens=0"], r"calibration\.max_tokens=0"),
        (["calibration=hf", "calibration.path=x", "calibration.prompt=Read."], r"prompt='Read\.'.*one of them"),
        (["calibration=few_shot", *needed("calibration", "few_shot"), "calibration.shots=1"], r"calibration\.shots=1"),
        (
            ["calibration=interleaved", *needed("calibration", "interleaved"), "calibration.conversations=1"],
            r"calibration\.conversations=1",
        ),
        (
            ["calibration=interleaved", "calibration@calibration.text=hf", *needed("calibration", "interleaved")],
            r"calibration\.text\.kind=hf: expected plain text",
        ),
        (
            ["calibration=mixture", *needed("calibration", "mixture"), "calibration.shares.ocr=-1"],
            r"calibration\.shares\.ocr=-1\.0: expected a positive share",
        ),
        (
            ["calibration=mixture", *needed("calibration", "mixture"), "+calibration.shares.orc=1"],
            r"calibration\.shares names captions, ocr, orc, calibration\.parts captions, ocr",
        ),
        (
            ["calibration=mixture", *needed("calibration", "mixture"), "calibration.shares.ocr=0.0001"],
            r"calibration\.shares\.ocr leaves no sample of 128",
        ),
        (
            ["calibration=mixture", *needed("calibration", "mixture"), "calibration.parts.ocr.prompt=x"],
            r"calibration\.parts\.ocr\.prompt='x'",
        ),
        (["evaluation.limit=0"], r"evaluation\.limit=0: expected 1 or more"),
        (["evaluation.batch_size=-1"], r"evaluation\.batch_size=-1"),
        (["evaluation.tasks=[]"], r"evaluation\.tasks is empty"),
        (["evaluation=python_docs", "evaluation.text.window=1"], r"evaluation\.text\.window=1: expected 2 or more"),
        (["evaluation=python_docs", "evaluation.text.path=/x"], r"evaluation\.text\.path=/x: python_docs comes with"),
        (["evaluation.text.corpus=docs"], r"evaluation\.text\.path is null: expected a file, .*corpus=docs \(python_"),
        (["evaluation=text"], r"evaluation\.text\.path is null: expected a file"),
        (["evaluation.text.path=/x"], r"evaluation\.text\.path=/x: expected a name for it in tables"),
        (["evaluation.text={corpus: qig_digitgrid, path: /x}"], r"text\.corpus=qig_digitgrid: a task of"),
        (["calibration=python_docs", "calibration.max_tokens=0"], r"calibration\.max_tokens=0"),
        (["calibration=infovqa", "calibration.path=x", "calibration.max_pixels=0"], r"calibration\.max_pixels=0"),
        (["threads=0"], r"threads=0: expected 1 or more"),
        (["model.outliers.sigma=-0.5"], r"model\.outliers\.sigma=-0\.5"),
        (["quant.linears='('"], r"quant\.linears='\(' is not a regular expression"),
        (["quant.weights.bits=1"], r"quant\.weights\.bits=1: expected 2 to 8"),
        (["quant.weights.bits=9"], r"quant\.weights\.bits=9: expected 2 to 8"),
        (["quant.weights.group_size=0"], r"quant\.weights\.group_size=0"),
        (["quant=w4a16", "quant.weights.group_size=4"], r"quant\.weights\.group_size=4: expected 8 or more"),
        (["quant=w4a8", "quant.activations.bits=1"], r"quant\.activations\.bits=1: expected 2 to 8"),
        (["quant=w4a8", "quant.weights.group_size=128"], r"integer activations need symmetric weights"),
        (["quant=w4a8", "quant.weights.symmetric=false"], r"integer activations need symmetric weights"),
        (["quant=w4a8", "quant.weights=null", "method=none"], r"activations without weights in integers"),
        (["sensitivity.nodes=0"], r"sensitivity\.nodes=0"),
        (["sensitivity.tolerance=0"], r"sensitivity\.tolerance=0"),
        (["sensitivity.clip_factor=-1"], r"sensitivity\.clip_factor=-1"),
        (["equalization.points=0"], r"equalization\.points=0"),
        (["equalization.step=0"], r"equalization\.step=0"),
        (["method=smoothquant", "equalization.alpha=1.5"], r"equalization\.alpha=1\.5: expected 0 .* to 1"),
        (["method=smoothquant", "equalization.alpha=-0.1"], r"equalization\.alpha=-0\.1"),
        (["evaluation.max_empty_share=1.1"], r"evaluation\.max_empty_share=1\.1: expected a share"),
        (["evaluation.max_unparsed_share=-0.1"], r"evaluation\.max_unparsed_share=-0\.1"),
        (["evaluation.processes=0"], r"evaluation\.processes=0: expected 1 or more"),
        (["evaluation.processes=2", "evaluation.sharded=true"], r"evaluation\.processes=2 asks for several models"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_rules_across_fields(compose, overrides, message):
    with pytest.raises(ConfigError, match=message):
        resolve(compose(*overrides))


def test_sites_that_can_be_configured_are_those_of_the_table(compose):
    names = [site.name for site in LLAMA_SITES]
    assert resolve(compose(f"equalization.sites=[{','.join(names)}]")).equalization.sites == names


@pytest.mark.parametrize(
    ("overrides", "field", "value"),
    [
        (["method=qig", "quant=w3a16"], "reference", "zero"),
        (["method=qig", "quant=w4a8"], "reference", "quantized"),
        (["method=qig", "quant=w4a8", "sensitivity.reference=zero"], "reference", "zero"),
        (["method=mbq", "equalization.loss=mse"], "balance", "per_modality"),
        (["method=mbq", "equalization.loss=mae"], "balance", "per_token"),
        (["method=mbq", "sensitivity.balance=per_token"], "balance", "per_token"),
        (["method=gptq", "sensitivity=modality_gradient"], "balance", "per_modality"),
        (["method=gptaq", "sensitivity=modality_gradient"], "balance", "per_modality"),
        (["method=awq_learned", "sensitivity=modality_gradient", "equalization.loss=mae"], "balance", "per_token"),
    ],
)
def test_auto_values(compose, overrides, field, value):
    assert getattr(resolve(compose(*overrides)).sensitivity, field) == value


def test_sets_inside_a_set_follow_the_whole(compose):
    mixture = [*needed("calibration", "mixture"), "calibration.samples=10", "calibration.seed=7"]
    config = compose("calibration=mixture", "calibration.shares={captions: 2, ocr: 1}", *mixture)
    parts = resolve(config).calibration.parts
    assert {name: part.samples for name, part in parts.items()} == {"captions": 7, "ocr": 3}
    assert {part.seed for part in parts.values()} == {7}
    interleaved = compose("calibration=interleaved", *needed("calibration", "interleaved"), "calibration.samples=5")
    inside = resolve(interleaved).calibration
    assert (inside.of.samples, inside.text.samples) == (10, 5)
    shots = compose("calibration=few_shot", *needed("calibration", "few_shot"), "calibration.samples=5")
    assert resolve(shots).calibration.of.samples == 10
    assert resolve(resolve(shots)) == resolve(shots)


@given(st.integers(1, 300), st.lists(st.floats(0.01, 100), min_size=1, max_size=6))
def test_shares_lose_no_sample(total, shares):
    counts = split_by_share(total, {str(i): share for i, share in enumerate(shares)})
    assert sum(counts.values()) == total
    for i, share in enumerate(shares):
        assert abs(counts[str(i)] - total * share / sum(shares)) < 1 + 1e-9


def test_resolve_leaves_its_argument_alone(compose):
    config = compose("method=mbq")
    resolve(config)
    assert config.sensitivity.balance == "auto"


# What a change must do to the keys (quantized, evaluation, run) of a W3A16 QIG run.
ALL, LATER, RUN, NONE = (True, True, True), (False, True, True), (False, False, True), (False, False, False)
EFFECTS = {
    "quant.weights.bits=4": ALL,
    "quant.weights.group_size=64": ALL,
    "quant.weights.symmetric=true": ALL,
    r"quant.linears='mlp\..*'": ALL,
    "quant.name=other": RUN,
    "sensitivity.granularity=modality": ALL,
    "sensitivity.normalize=corpus": ALL,
    "sensitivity.reference=quantized": ALL,
    "sensitivity.reference=zero": NONE,  # what it is here
    "sensitivity.target=output": ALL,
    "sensitivity.quantized_branch=constant": ALL,
    "sensitivity.quantized_activations=true": ALL,
    "sensitivity.factor=2": ALL,
    "sensitivity.warmup_sites=1": ALL,
    "sensitivity.control=permuted": ALL,
    "sensitivity.control_seed=3": ALL,
    "sensitivity.quadrature=midpoint": ALL,
    "sensitivity.nodes=4": ALL,
    "sensitivity.max_nodes=32": ALL,
    "sensitivity.tolerance=0.03": ALL,
    "sensitivity.score=signed_sum": ALL,
    "sensitivity.clip=none": ALL,
    "sensitivity.clip_factor=2": ALL,
    "sensitivity.closed_form=false": ALL,
    "equalization.sites=[mlp_in]": ALL,
    "equalization.points=10": ALL,
    "equalization.step=0.1": ALL,
    "equalization.scope=linear": ALL,
    "equalization.loss=mae": ALL,
    "equalization.stream=quantized": ALL,
    "equalization.stream=both": ALL,
    "equalization.statistic=weighted": ALL,
    "equalization.early_stop=false": ALL,  # not the scales, but the record of the search
    "equalization.share_attn_out=true": ALL,
    "rounding=gptq": ALL,  # what the other choices of each group are made of: test_identity.py
    "calibration.samples=8": ALL,
    "calibration.seed=1": ALL,
    "calibration.tokens_per_batch=100": ALL,
    "calibration.max_skipped_share=0.5": ALL,
    "seed=1": ALL,
    "model.dtype=bfloat16": ALL,
    "model.outliers.sigma=0.1": ALL,
    "model.outliers.seed=5": ALL,
    "threads=97": ALL,
    "memory.activations=disk": NONE,
    "plan=true": NONE,
    "evaluation.limit=7": LATER,
    "evaluation.seed=7": LATER,
    "evaluation.batch_size=7": LATER,  # it decides the order of sums
    "evaluation.protocol=corrected": LATER,
    "evaluation.max_empty_share=0.5": NONE,
    "evaluation.max_unparsed_share=0.25": NONE,
    "evaluation.processes=2": NONE,
    "evaluation.sharded=true": NONE,
    "evaluation.nll=false": LATER,
    "evaluation.tasks=[other]": LATER,
    "evaluation.include_path=/elsewhere": NONE,  # the content of a folder that has one of the tasks enters
    "evaluation.text.corpus=python_docs": LATER,
    "evaluation.text.window=64": NONE,  # of no text; of one: test_identity.py
    "evaluation.text.name=x": NONE,
    "evaluation.text.split=x": NONE,
    "evaluation.text.text_column=x": NONE,
    "method=awq": ALL,
    "model.name=renamed": RUN,
    "tracking=none": NONE,
    "tracking.project=x": NONE,
    "tracking.tags=[a]": NONE,
    "store=/elsewhere": NONE,
    "device=cpu": NONE,  # the device that is meant enters, not how it was asked for
    "model.path=/elsewhere": NONE,  # its content enters
}


def keys(config, checkpoint="c" * 64, device="cpu", calibration="d" * 64):
    config = resolve(config)
    model = identity.model_identity(config, checkpoint, device)
    quantized = identity.quantized_key(config, model, calibration)
    evaluation = identity.evaluation_key(config, model, quantized)
    return quantized, evaluation, identity.run_key(config, quantized, evaluation)


@pytest.mark.parametrize("override", EFFECTS)
def test_keys_change_with_what_matters_and_with_nothing_else(compose, override):
    before, after = keys(compose("quant=w3a16")), keys(compose("quant=w3a16", override))
    assert tuple(one != other for one, other in zip(before, after, strict=True)) == EFFECTS[override]


def test_every_field_has_an_effect_that_was_thought_about(compose):
    fields = {name for name, _ in flattened(dataclasses.asdict(compose("quant=w3a16")))}
    thought = {override.partition("=")[0] for override in EFFECTS}
    thought |= {"quant.activations", "equalization.kind", "sensitivity.kind", "calibration.kind", "rounding.kind"}
    thought |= {"evaluation.text.path"}  # refused without a corpus; with one: test_identity.py
    assert {name for name in fields - thought if name.partition(".")[0] != "tracking"} == set()


def test_keys_change_with_the_checkpoints_content_the_device_and_the_code(compose, monkeypatch):
    config = compose("quant=w3a16")
    base = keys(config)
    assert all(a != b for a, b in zip(base, keys(config, checkpoint="d" * 64), strict=True))
    assert all(a != b for a, b in zip(base, keys(config, device="cuda"), strict=True))
    assert all(a != b for a, b in zip(base, keys(config, calibration="e" * 64), strict=True))
    on_a_card, elsewhere = (keys(compose("quant=w3a16", f"threads={n}"), device="cuda") for n in (1, 8))
    assert on_a_card == elsewhere  # the processor's threads decide nothing there
    monkeypatch.setattr(identity, "code_version", lambda parts: f"changed {parts}")
    monkeypatch.setattr(identity, "quantization_code", lambda **kinds: f"changed {kinds}")
    assert all(a != b for a, b in zip(base, keys(config), strict=True))


@pytest.mark.parametrize("file", ["models/outliers.py", "models/folding.py", "models/loading.py"])
def test_16_bit_results_depend_on_the_code_that_makes_the_model(compose, monkeypatch, tmp_path, file):
    """The 16-bit baseline is loaded and given its outliers by this code; its results do not outlive a change of it."""
    import shutil

    shutil.copytree(sources.PACKAGE, tmp_path / "qig", ignore=shutil.ignore_patterns("checkpoints", "__pycache__"))
    config = compose("method=none")
    monkeypatch.setattr(sources, "PACKAGE", tmp_path / "qig")

    def now():
        sources.code_version.cache_clear()
        return keys(config)

    try:
        before = now()
        with (tmp_path / "qig" / file).open("a") as stream:
            stream.write("\n# changed\n")
        assert before[1] != now()[1]
    finally:
        sources.code_version.cache_clear()


def test_sixteen_bits_have_one_identity_whatever_the_method(compose):
    plain = keys(compose("method=none"))
    assert plain[0] is None
    assert keys(compose("method=qig", "quant=fp16", "calibration.seed=4", "seed=3"))[:2] == plain[:2]


def gradients(config, calibration="calibration", model="model"):
    """The identity that a resolved configuration's whole-model gradients have."""
    return identity.gradients_key(resolve(config), {"model": model}, calibration)


def test_gradients_are_shared_by_methods_and_grids_and_by_nothing_else(compose):
    plain = gradients(compose("method=mbq"))
    for same in ("method=vlmq", "quant=w4a8", "sensitivity.normalize=sample", "memory.activations=disk"):
        assert gradients(compose(*([] if same == "method=vlmq" else ["method=mbq"]), same)) == plain
    for other in ("calibration.samples=3", "calibration.tokens_per_batch=99", "seed=5"):
        assert gradients(compose("method=mbq", other)) != plain
    assert gradients(compose("method=mbq"), "other data") != plain != gradients(compose("method=mbq"), model="other")


def test_who_reads_gradients(compose):
    reading = {name for name in METHODS if needs_gradients(resolve(compose(f"method={name}")))}
    assert reading == {"mbq", "mbq_release", "vlmq"}
    assert not needs_gradients(resolve(compose("method=mbq", "equalization=none")))


def test_rtn_does_not_depend_on_data_or_seeds(compose):
    base = keys(compose("method=rtn"))
    for override in ("calibration.seed=9", "calibration.samples=3", "seed=4", "sensitivity=qig"):
        assert keys(compose("method=rtn", override)) == base
    assert not needs_calibration(resolve(compose("method=rtn")))
    assert needs_calibration(resolve(compose("method=smoothquant")))


def test_baselines_are_shared_by_all_methods(compose):
    runs = [resolve(compose(f"method={m}", f"calibration.seed={s}")) for m in ("qig", "awq", "mbq") for s in (0, 1)]
    for name in ("none", "rtn"):
        assert len({keys(baseline(run, name)) for run in runs}) == 1
    assert keys(baseline(runs[0], "rtn")) == keys(compose("method=rtn"))
    assert keys(baseline(runs[0], "none")) == keys(compose("method=none"))
    assert resolve(baseline(runs[0], "rtn")) == baseline(runs[0], "rtn")


def test_keys_are_short_and_stable_between_calls(compose):
    first, second = keys(compose()), keys(compose())
    assert first == second and all(re.fullmatch("[0-9a-f]{16}", key) for key in first)


@pytest.mark.parametrize(("group", "choice"), GROUPS, ids=["/".join(pair) for pair in GROUPS])
def test_no_yaml_value_is_swallowed_by_the_schema(composed, group, choice):
    """What a group's YAML says is what the composed configuration holds."""
    written = OmegaConf.load(CONF / group / f"{choice}.yaml")
    written.pop("defaults", None)
    whole = composed(f"{group}={choice}")
    found = OmegaConf.to_container(whole if group == "method" else whole[group], resolve=False)
    with_it = OmegaConf.to_container(OmegaConf.merge(found, written), resolve=False)
    for key in written:
        assert found[key] == with_it[key], key


@pytest.mark.parametrize("reference", ["zero", "quantized"])
@pytest.mark.parametrize("setting", ["w3a16", "w4a8"])
def test_the_tolerance_is_that_of_the_path_and_not_of_the_bit_setting(compose, setting, reference):
    found = compose("method=qig", f"quant={setting}", f"sensitivity.reference={reference}").sensitivity
    assert (found.reference, found.tolerance) == (reference, {"zero": 0.01, "quantized": 0.05}[reference])
