"""What a record says of the place: enough to set it up again, and no secret."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qig.environment import environment


def test_only_listed_variables_are_shown(monkeypatch):
    for name in ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "PASSWORD", "QIG_STORE"):
        monkeypatch.setenv(name, "s3cr3t-value")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = environment(torch.device("cpu"))
    assert found["variables"]["OMP_NUM_THREADS"] == "1"
    assert "s3cr3t-value" not in json.dumps(found)


def test_packages_threads_and_code():
    found = environment(torch.device("cpu"))
    assert found["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert found["cpu"]["threads"] == torch.get_num_threads() and found["device"] == "cpu"
    assert found["git"] is None or len(found["git"]["commit"]) == 40


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings GNU's OpenMP on Linux only")
@pytest.mark.parametrize(
    ("given", "shown"),
    [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "0")],
)
def test_threads_that_wait_do_not_spin_for_long(given, shown):
    """With libgomp's own choice a run takes 50 times as long where another process has one of two cores."""
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    library = next(Path(torch.__file__).parent.glob("lib/libgomp*"), None)  # torch itself takes seconds
    load = f"import qig, ctypes; ctypes.CDLL({str(library)!r})" if library and given else "import qig.determinism"
    environment = {**kept, "OMP_DISPLAY_ENV": "VERBOSE", **given}
    told = subprocess.run([sys.executable, "-c", load], env=environment, capture_output=True, text=True)
    assert f"GOMP_SPINCOUNT = '{shown}'" in told.stderr, told.stderr
