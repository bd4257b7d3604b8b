"""A small part of the campaign (make faults): the same faults, a few of each, on one embedded model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
def test_a_handful_of_kills_ends_with_the_right_bits(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(TESTS), str(TESTS.parent / "src")))}
    part = ["--quick", "--only", "kills", "--kills", "3", "--to", str(tmp_path)]
    command = [sys.executable, "-m", "faults.campaign", *part]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "| SIGKILL | 3 |" in (tmp_path / "reliability.md").read_text()
