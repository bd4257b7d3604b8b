import runpy
from pathlib import Path

import pytest

FABRICATED = runpy.run_path(str(Path(__file__).with_name("fabricated.py")))


@pytest.fixture
def store(tmp_path):
    """An empty store of fabricated runs (see fabricated.py)."""
    return FABRICATED["Store"](tmp_path / "store")


@pytest.fixture
def task_samples():
    return FABRICATED["task_samples"]
