"""What the configuration of the newer choices refuses, before anything is loaded."""

from __future__ import annotations

import pytest

from qig.config.validation import resolve
from qig.errors import ConfigError

REFUSED = {
    "method=gptq rounding.order_by_activation=true": r"rounding\.static_groups=true",
    "method=gptaq rounding.stream=exact": r"rounding\.stream=quantized",
    "method=gptaq rounding.asymmetry=1.5": r"rounding\.asymmetry=1\.5: expected 0 \(GPTQ\) to 1",
    "method=gptq rounding.damping=-0.1": r"rounding\.damping=-0\.1: expected 0 or more",
    "method=gptq rounding.block=0": r"rounding\.block=0: expected 1 or more",
    "method=awq_clip rounding.points=0": r"rounding\.points=0: expected 1 or more",
    "method=awq_clip rounding.max_shrink=1": r"rounding\.max_shrink=1\.0: expected",
    "method=awq equalization=learned equalization.rate=0": r"equalization\.rate=0\.0: expected",
    "method=awq equalization=learned equalization.steps=0": r"equalization\.steps=0: expected 1 or more",
    "method=awq sensitivity=perturbation sensitivity.rows_per_batch=0": r"rows_per_batch=0: expected 1 or more",
    "method=qig sensitivity.nodes=16 sensitivity.max_nodes=8": r"max_nodes=8: expected 16 or more",
    "method=qig sensitivity.factor=0": r"sensitivity\.factor=0\.0: expected",
    "method=qig sensitivity.warmup_sites=-1": r"warmup_sites=-1: expected 0 or more",
}
ACCEPTED = [
    "method=gptq rounding.order_by_activation=true rounding.static_groups=true",
    "method=gptq rounding.order_by_activation=true quant=w4a8",
    "method=gptq rounding.stream=exact rounding.damping=0",
    "method=gptaq rounding.order_by_activation=true rounding.static_groups=true",
]


@pytest.mark.parametrize(("overrides", "message"), REFUSED.items(), ids=REFUSED)
def test_refused_with_the_key_and_what_was_expected(compose, overrides, message):
    with pytest.raises(ConfigError, match=message):
        resolve(compose(*overrides.split()))


@pytest.mark.parametrize("overrides", ACCEPTED)
def test_accepted(compose, overrides):
    resolve(compose(*overrides.split()))
