"""Configurations come back from their records as they were, and records of other versions are told apart."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from tests.config.test_config import METHODS, through_json

from qig.config.recorded import recorded_calibration, recorded_config
from qig.config.validation import baseline, resolve
from qig.errors import StoreError


@pytest.mark.parametrize("method", METHODS)
def test_baselines_come_back_as_they_were(compose, method):
    config = resolve(compose(f"method={method}", "quant=w4a8" if method != "none" else "quant=fp16"))
    for name in ("none", "rtn"):
        found = recorded_config(through_json(baseline(config, name)))
        assert asdict(found) == asdict(baseline(config, name))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda config: config["sensitivity"].update(points=3), "points"),
        (lambda config: config["sensitivity"].pop("nodes"), "nodes"),
        (lambda config: config["sensitivity"].update(kind="qgi"), "did you mean 'qig'"),
        (lambda config: config["calibration"].update(samples="many"), "many"),
        (lambda config: config.pop("equalization"), "lacks 'equalization'"),
        (lambda config: config.update(surprise=1), "surprise"),
        (lambda config: config.update(sensitivity=None), "NoneType"),
    ],
)
def test_records_of_other_versions_are_refused(compose, change, said):
    record = through_json(resolve(compose("method=qig")))
    change(record["config"])
    with pytest.raises(StoreError, match="run r was recorded by another version") as told:
        recorded_config(record)
    assert said in str(told.value) and "commit c0ffee" in str(told.value)


def test_calibration_alone_whatever_the_rest_holds(compose):
    config = resolve(compose("method=qig", "calibration=few_shot", "calibration@calibration.of=digitgrid"))
    record = through_json(config)
    record["config"] = {"calibration": record["config"]["calibration"], "sensitivity": {"kind": "of another version"}}
    assert asdict(recorded_calibration(record)) == asdict(config.calibration)
    record["config"]["calibration"]["of"]["surprise"] = 1
    with pytest.raises(StoreError, match=r"another version.*surprise"):
        recorded_calibration(record)


def test_a_record_without_a_configuration_is_refused():
    with pytest.raises(StoreError, match="another version"):
        recorded_config({"id": "r"})
