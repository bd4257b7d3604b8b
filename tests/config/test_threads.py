"""``threads: null`` is a number before a run gets its identity."""

from __future__ import annotations

import os

import pytest

from qig.config import identity
from qig.config.threads import available_threads
from qig.config.validation import resolve


@pytest.mark.parametrize(("asked", "found"), [("3", 3), ("4,2", 4), (" 5 ", 5)])
def test_openmps_variable_counts(monkeypatch, asked, found):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert available_threads() == found


@pytest.mark.parametrize("asked", ["", "0", "-1", "many", "1.5"])
def test_a_variable_that_says_nothing_is_not_followed(monkeypatch, asked):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert available_threads() == len(os.sched_getaffinity(0))


def test_machines_with_other_numbers_of_cores_have_other_runs(compose, monkeypatch):
    def key(threads, *overrides):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        config = resolve(compose("method=none", *overrides))
        assert config.threads == (int(overrides[0].partition("=")[2]) if overrides else int(threads))
        return identity.evaluation_key(config, identity.model_identity(config, "c", "cpu"), None)

    assert key("2") != key("3")
    assert key("2") == key("3", "threads=2")
