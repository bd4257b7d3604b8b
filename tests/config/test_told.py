"""What Hydra and OmegaConf refuse is told in a user's words: what came, what was expected, the choices."""

import re

import pytest

from qig.config.composed import composed
from qig.config.rules import check
from qig.errors import ConfigError

TOLD = [
    ("evaluation.limit=ten", "evaluation.limit=ten: expected a whole number, or null"),
    ("evaluation.limit=1e2", "evaluation.limit=1e2: expected a whole number, or null"),
    ("evaluation.limit=", "evaluation.limit=: expected a whole number, or null; nothing is null"),
    ("seed=1.5", "seed=1.5: expected a whole number"),
    ("model.outliers.sigma=5%", "model.outliers.sigma=5%: expected a number (0.05, not 1/20 or 5%)"),
    ("evaluation.nll=maybe", "evaluation.nll=maybe: expected true or false"),
    ("quant.linears=null", "quant.linears=null: expected a value"),
    ("evaluation.tasks=mmmu_val", "evaluation.tasks is a list: give it as evaluation.tasks=[mmmu_val]"),
    ("model.outliers=none", "model.outliers is no single value: set model.outliers.sigma, model.outliers.seed"),
    ("memory.activations=ram", "unknown memory.activations 'ram'; choose from: device, disk, host"),
    ("quant.activations.bits=8", "quant.activations.bits cannot be set: quant.activations is null with this quant"),
    ("calibration.path=/x", "calibration.path is a key of calibration=hf, calibration=pile, calibration=sharegpt4v"),
    ("samples=8", "unknown configuration key 'samples' (did you mean calibration.samples?)"),
    ("bits=4", "unknown configuration key 'bits' (did you mean quant.activations.bits or quant.weights.bits?)"),
    ("evaluation.limt=3", "unknown configuration key 'evaluation.limt' (did you mean 'evaluation.limit'?)"),
    ("wandb=false", "unknown configuration key 'wandb'; choose from: calibration, device"),
    ("method=rtn,awq", "method=rtn,awq: expected one choice; a sweep over several is qig -m method=rtn,awq"),
    ("method=[rtn,awq]", "method: expected one choice, not a list; a sweep"),
    ("method=AWQ", "unknown method 'AWQ' (did you mean 'awq'?); choose from: awq, awq_clip"),
    ("+experiment=table5-gptq", "unknown experiment 'table5-gptq' (did you mean 'table5_gptq'?)"),
    ("tracking=false", "of a group a name is chosen, such as tracking=none, method=rtn; got bool"),
    ("store=/data,v2", "store=/data,v2: expected one value; a sweep"),
    ("store=/a=b", "store=/a=b cannot be read as KEY=VALUE: a value with = ( ) { } , or the like wants"),
    ("table2_main", "'table2_main': expected KEY=VALUE; an experiment is qig -m +experiment=table2_main"),
    ("run", "'run': expected KEY=VALUE"),
]


@pytest.mark.parametrize(("word", "told"), TOLD, ids=[word for word, _ in TOLD])
def test_a_refusal_is_in_the_users_words(word, told):
    with pytest.raises(ConfigError) as refused:
        composed([word])
    said = str(refused.value)
    assert said.startswith(told)
    assert "\n" not in said and "full_key" not in said and "hydra.cc" not in said


KINDS = [
    (["method=awq", "sensitivity.kind=attention"], "sensitivity.kind=attention alone leaves another choice's options"),
    (["method=qig", "sensitivity.kind=uniform"], "sensitivity.kind=uniform alone"),
    (["method=qig", "equalization.kind=none"], "equalization.kind=none alone"),
    (["method=rtn", "rounding.kind=gptq"], "rounding.kind=gptq alone"),
    (["method=rtn", "rounding.kind=foo"], "unknown rounding.kind 'foo'; choose from: clipped, gptaq"),
    (["calibration.kind=pile"], "calibration.kind=pile alone"),
    (["method=awq", "equalization.sites=[]"], "equalization.sites is empty"),
    (["method=awq", "equalization.sites=[mlp_in,mlp_in]"], "a site is given more than once"),
]


@pytest.mark.parametrize(("words", "told"), KINDS, ids=[words[-1] for words, _ in KINDS])
def test_what_would_run_as_another_method_is_refused(words, told):
    """A kind alone kept the name: method=awq sensitivity.kind=attention was called AWQ in every table."""
    with pytest.raises(ConfigError, match=re.escape(told)):
        check(composed(words))


def test_the_quotes_that_are_advised_work():
    assert composed(['store="/a=b"']).store == "/a=b"
    assert composed(['store="/data,v2"']).store == "/data,v2"
