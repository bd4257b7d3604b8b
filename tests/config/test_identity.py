"""The keys of what the default run has not: each option of the other choices, and no two methods alike."""

from __future__ import annotations

import dataclasses
import itertools

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
            fields = {name for name in fields if name.startswith("text.")} - {"text.corpus"}
        assert fields - {"kind"} == named, base


def test_no_two_methods_have_the_same_keys(compose):
    found = {name: keys(compose("quant=w3a16", f"method={name}")) for name in METHODS if name != "none"}
    for (name, one), (other, another) in itertools.combinations(found.items(), 2):
        assert all(a != b for a, b in zip(one, another, strict=True)), f"{name} and {other}"


def test_its_name_is_not_what_tells_a_method_apart(compose):
    """The quantized model is found again under whatever method has the same parts."""
    config = resolve(compose("quant=w3a16", "method=gptq"))
    model = identity.model_identity(config, "c" * 64, "cpu")
    renamed = dataclasses.replace(config, method="other")
    assert identity.quantized_key(config, model, "d") == identity.quantized_key(renamed, model, "d")
