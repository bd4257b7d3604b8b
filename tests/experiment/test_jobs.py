"""The jobs of a sweep with arms: what Hydra's own sweeper would make, and arms beside it."""

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from qig.errors import ConfigError
from qig.experiment.jobs import jobs, warn_of_replaced


def hydras(params, arguments):
    words = [f"{key}={value}" for key, value in params.items()] + arguments
    return BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(words), None)[0]


@pytest.mark.parametrize("params, arguments", [
    ({}, ["method=qig"]),
    ({"method": "awq,mbq", "seed": "range(3)"}, ["+experiment=x"]),
    ({"method": "awq,mbq"}, ["method=qig", "model=a,b"]),
    ({"seed": 3, "evaluation.tasks": "[a,b],[c]"}, ["quant=w3a16"]),
])
def test_without_arms_the_jobs_are_hydras(params, arguments):
    assert [list(job.overrides) for job in jobs(params, {}, arguments)] == hydras(params, arguments)


def test_each_arm_stands_at_each_point():
    found = jobs({"quant": "w3a16,w4a8"}, {"A": "method=awq", "Q": "method=qig sensitivity.nodes=4,8"}, ["model=m"])
    assert [(job.arm, dict(job.point)) for job in found] == [
        ("A", {"quant": "w3a16"}), ("Q", {"quant": "w3a16", "sensitivity.nodes": "4"}),
        ("Q", {"quant": "w3a16", "sensitivity.nodes": "8"}),
        ("A", {"quant": "w4a8"}), ("Q", {"quant": "w4a8", "sensitivity.nodes": "4"}),
        ("Q", {"quant": "w4a8", "sensitivity.nodes": "8"})]
    assert found[1].overrides == ("quant=w3a16", "model=m", "method=qig", "sensitivity.nodes=4")


def test_an_arm_stays_what_it_is_and_stands_at_the_parameters_point():
    job = jobs({"quant": "w3a16"}, {"16 bit": "method=none quant=fp16"}, ["quant=w4a8"])[0]
    assert job.overrides == ("quant=fp16", "method=none")
    assert dict(job.point) == {"quant": "w4a8"}


def test_a_parameter_of_the_experiment_is_a_key_of_the_table_even_when_one_value_is_given():
    assert dict(jobs({"model": "a,b"}, {"A": "x=1"}, ["model=c", "y=2"])[0].point) == {"model": "c"}


@pytest.mark.parametrize("arms, arguments, said", [
    ({"A": {"method": "awq"}}, [], "expected words"),
    ({"A": "x=interval(0,1)"}, [], "expected single values"),
    ({"A": "x=1"}, ["y=interval(0,1)"], "expected single values"),
])
def test_what_cannot_be_listed_is_refused(arms, arguments, said):
    with pytest.raises(ConfigError, match=said):
        jobs({}, arms, arguments)


def test_a_word_that_every_arm_replaces_is_warned_of(caplog):
    arms = {"A": "method=awq", "Q": "method=qig seed=1"}
    warn_of_replaced(arms, ["+experiment=x", "seed=3", "quant=w4a8"])
    warn_of_replaced({}, ["method=rtn"])
    assert not caplog.records
    warn_of_replaced(arms, ["method=rtn,gptq", "seed=3"])
    assert [record.getMessage() for record in caplog.records] == [
        "method=rtn,gptq changes nothing: every arm sets method. Arms are chosen with 'hydra.sweeper.only=[A]'"
    ]


def test_an_empty_sweep_is_refused():
    with pytest.raises(ConfigError, match=r"seed=range\(3,0\): expected at least one value"):
        jobs({}, {}, ["seed=range(3,0)"])
