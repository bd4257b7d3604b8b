"""Places of a toy block in float64, and the configuration of the estimator."""

from __future__ import annotations

import pytest

from oracles.settings import make_config
from oracles.views import Toy


@pytest.fixture
def toys():
    """``toys(setting, lengths, seed)``."""
    return Toy


@pytest.fixture
def qig_config():
    """``qig_config(field=value, ...)``, see oracles/settings.py."""
    return make_config
