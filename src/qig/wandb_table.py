"""Rows of any values as a table that W&B takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Any:
    """A ``wandb.Table`` of these columns."""
    import wandb

    # A configuration key may be a number in one run and a word in the next.
    data = [[_plain(value) for value in row] for row in rows]
    return wandb.Table(columns=list(columns), data=data, allow_mixed_types=True)


def _plain(value: Any) -> Any:
    """A cell that W&B can type: Python's own numbers, None for NaN, text for the rest."""
    value = value.item() if hasattr(value, "item") else value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return value if isinstance(value, (bool, int, float, str)) else str(value)
