"""The models by name: each is a checkpoint of the hub as it is, in 16 bits, without synthetic outliers."""

from __future__ import annotations

import re

import pytest

from families.table import FAMILIES
from qig.config import conf_dir

EMBEDDED = {"tiny_qwen2_vl", "tiny_llava_onevision", "tiny_internvl"}
LOCAL = {"hf", "hf_causal_lm", "smollm2_135m", "smol_internvl"}
NAMES = sorted({path.stem for path in (conf_dir() / "model").glob("*.yaml")} - EMBEDDED - LOCAL)


@pytest.mark.parametrize("name", NAMES)
def test_published_model(compose, name):
    model = compose(f"model={name}").model
    assert model.name == name
    assert re.fullmatch(r"[\w-]+/[\w.-]+", model.path)
    assert model.dtype == "bfloat16" and model.outliers.sigma == 0
    assert compose(f"model={name}", "model.path=/copy").model.path == "/copy"


def test_every_family_has_a_name_and_is_tested(compose):
    paths = {compose(f"model={name}").model.path for name in NAMES}
    assert len(paths) == len(NAMES)
    assert {family.published for name, family in FAMILIES.items() if name != "idefics3"} <= paths
