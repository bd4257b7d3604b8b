"""A short hash of plain values."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, is_dataclass
from typing import Any


def digest(value: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of the canonical JSON of ``value``."""
    text = json.dumps(value, sort_keys=True, default=lambda v: asdict(v) if is_dataclass(v) else str(v))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
