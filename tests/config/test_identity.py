"""The keys of what the default run has not: each option of the other choices, and no two methods alike."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest
from tests.config.test_config import METHODS, flattened, keys

from qig.config import identity
from qig.config.validation import resolve

GPTQ = ("damping=0.02", "block=64", "order_by_activation=true", "static_groups=true")
# Choices of a group that the default run does not have, with another value of every field.
OPTIONS = {
    "rounding=gptq": ("stream=exact", *GPTQ),
    "rounding=gptaq": ("asymmetry=1", *GPTQ),
    "rounding=clipped": ("points=5", "max_shrink=0.25", "skip=[q_proj]"),
    "equalization=smoothquant": ("sites=[mlp_in]", "share_attn_out=true", "alpha=0.25"),
    "equalization=learned": (
        "sites=[mlp_in]", "share_attn_out=true", "points=10", "step=0.1", "scope=linear", "loss=mae",
        "stream=quantized", "statistic=weighted", "early_stop=false", "steps=10", "rate=0.05",
    ),
    "sensitivity=perturbation": (
        "granularity=token", "normalize=corpus", "control=permuted", "control_seed=3", "rows_per_batch=5",
    ),
    "sensitivity=modality_gradient": ("normalize=sample", "control=permuted", "control_seed=3", "balance=per_token"),
    "evaluation=python_docs": ("text.window=64",),
}  # fmt: skip
# Values that their kind fixes, and fields that the default run has, too.
FIXED = {"rounding=gptaq": {"stream"}, "sensitivity=modality_gradient": {"granularity"}}
ROWS = [(base, option) for base, options in OPTIONS.items() for option in options]


def composed(compose, base: str, *options: str):
    group = base.partition("=")[0]
    # Activation order is refused with groups that are not fixed beforehand.
    return compose("quant=w3a16", "quant.weights.group_size=null", base, *(f"{group}.{option}" for option in options))


@pytest.mark.parametrize(("base", "option"), ROWS, ids=[f"{base} {option}" for base, option in ROWS])
def test_every_option_of_the_other_choices_changes_the_keys(compose, base, option):
    before, after = keys(composed(compose, base)), keys(composed(compose, base, option))
    changed = [one != other for one, other in zip(before, after, strict=True)]
    assert changed == [not base.startswith("evaluation="), True, True]


def test_no_option_of_a_choice_is_left_out(compose):
    for base, options in OPTIONS.items():
        group = base.partition("=")[0]
        fields = {name for name, _ in flattened(dataclasses.asdict(getattr(composed(compose, base), group)))}
        named = {option.partition("=")[0] for option in options} | FIXED.get(base, set())
        if group == "evaluation":  # its other fields: EFFECTS in test_config.py
            places = ("corpus", "path", "name", "split", "text_column")  # of a text of the user's: below
            fields = {name for name in fields if name.startswith("text.")} - {f"text.{name}" for name in places}
        assert fields - {"kind"} == named, base


def test_of_a_text_of_the_users_its_content_enters_and_what_tables_call_it(compose, tmp_path):
    def evaluation(*words: str):
        return keys(compose("evaluation=text", *words))[1]

    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": "red", "other": "blue"}))
    (tmp_path / "c.jsonl").write_text(json.dumps({"text": "blue"}))
    a, b, c = (f"evaluation.text.path={tmp_path / name}.jsonl" for name in "abc")
    same = {evaluation(a), evaluation(b), evaluation(a, "evaluation.text.split=train"),
            evaluation(a, "evaluation.text.name=x")}  # fmt: skip
    others = {evaluation(c), evaluation(a, "evaluation.text.corpus=x"), evaluation(a, "evaluation.text.window=8")}
    assert len(same) == 1 and len(others) == 3 and not same & others
    assert evaluation(a, "evaluation.text.text_column=other") == evaluation(c)


def test_no_two_methods_have_the_same_keys(compose):
    found = {name: keys(compose("quant=w3a16", f"method={name}")) for name in METHODS if name != "none"}
    for (name, one), (other, another) in itertools.combinations(found.items(), 2):
        assert all(a != b for a, b in zip(one, another, strict=True)), f"{name} and {other}"


def stage_keys(config) -> dict[str, str]:
    """Each stage's key by itself: none enters by way of another."""
    return {
        "quantized": identity.quantized_key(config, {"model": 1}, "data"),
        "gradients": identity.gradients_key(config, {"model": 1}, "data"),
        "evaluation": identity.evaluation_key(config, {"model": 1}, None),
    }


def changed(config, monkeypatch, name: str, value) -> set[str]:
    """The stages whose keys change with a function of the identity."""
    before = stage_keys(config)
    with monkeypatch.context() as patch:
        patch.setattr(identity, name, value)
        after = stage_keys(config)
    return {stage for stage in before if before[stage] != after[stage]}


COMPUTES, ASKS = {"quantized", "gradients", "evaluation"}, {"evaluation"}


@pytest.mark.parametrize(
    ("package", "stages"),
    [("torch", COMPUTES), ("transformers", COMPUTES), ("tokenizers", COMPUTES), ("numpy", COMPUTES),
     ("pillow", COMPUTES), ("torchvision", COMPUTES), ("datasets", COMPUTES), ("lmms-eval", ASKS),
     ("qwen-vl-utils", ASKS), ("wandb", set())],
)  # fmt: skip
def test_another_version_of_a_library_changes_what_it_computes(compose, monkeypatch, package, stages):
    known = identity.versions

    def other(packages):
        return {name: "9.9" if name == package else version for name, version in known(packages).items()}

    assert changed(resolve(compose("quant=w3a16", "method=mbq")), monkeypatch, "versions", other) == stages


def test_each_stage_changes_with_its_own_code(compose, monkeypatch):
    config = resolve(compose("quant=w3a16", "method=mbq"))
    assert changed(config, monkeypatch, "code_version", lambda _parts: "other") == {"evaluation"}
    assert changed(config, monkeypatch, "quantization_code", lambda **_kinds: "other") == {"quantized", "gradients"}


def test_running_text_of_another_python_is_asked_anew(compose, monkeypatch):
    for words, stages in (((), set()), (("evaluation=python_docs",), {"evaluation"})):
        config = resolve(compose("quant=w3a16", "method=mbq", *words))
        assert changed(config, monkeypatch, "text_record", lambda text: {"sha256": "of another"}) == stages


def test_its_name_is_not_what_tells_a_method_apart(compose):
    """The quantized model is found again under whatever method has the same parts."""
    config = resolve(compose("quant=w3a16", "method=gptq"))
    model = identity.model_identity(config, "c" * 64, "cpu")
    renamed = dataclasses.replace(config, method="other")
    assert identity.quantized_key(config, model, "d") == identity.quantized_key(renamed, model, "d")


SHAREGPT = ("calibration=sharegpt4v_coco", "calibration.path=/a/x.json", "calibration.image_folder=/a")
MIXTURE = ("calibration=mixture", "calibration.parts.captions.path=/a/x.json", "calibration.parts.ocr.path=/a/ocr",
           "calibration.parts.captions.image_folder=/a")  # fmt: skip


@pytest.mark.parametrize(("words", "moved"), [
    (SHAREGPT, ("calibration.path=/b/x.json", "calibration.image_folder=/b", "calibration.follow_links=true")),
    (MIXTURE, ("calibration.parts.captions.path=/b/x.json", "calibration.parts.ocr.path=/b/ocr")),
])  # fmt: skip
def test_where_calibration_data_lies_decides_nothing_once_its_content_is_known(compose, words, moved):
    here, there, other = (resolve(compose("method=mbq", *words, *more))
                          for more in ((), moved, ("calibration.samples=7",)))  # fmt: skip
    for content, alike in (("hash", True), (None, False)):
        keys_of = [identity.quantized_key(config, {"model": 1}, content) for config in (here, there, other)]
        assert (keys_of[0] == keys_of[1]) == alike and keys_of[0] != keys_of[2]
    assert identity.quantized_key(here, {"model": 1}, "hash") != identity.quantized_key(here, {"model": 1}, "changed")
    assert identity.gradients_key(here, {"model": 1}, "x") == identity.gradients_key(there, {"model": 1}, "x")
