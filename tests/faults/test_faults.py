"""A small part of the campaign (make faults): the same faults, a few of each, on one embedded model."""

from __future__ import annotations

import os
import sys

import pytest

import forked
from faults import campaign


@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
def test_a_handful_of_kills_ends_with_the_right_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["", "--quick", "--only", "kills", "--kills", "3", "--to", str(tmp_path)])
    done = forked.run(campaign.main, tmp_path, limit=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "| SIGKILL | 3 |" in (tmp_path / "reliability.md").read_text()
