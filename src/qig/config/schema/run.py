"""Where a run works and how it is tracked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from omegaconf import MISSING


@dataclass
class Memory:
    """``activations``: where hidden states of the calibration samples wait for their turn."""

    activations: Literal["device", "host", "disk"] = MISSING


@dataclass
class Tracking:
    kind: Literal["wandb", "none"] = MISSING
    mode: Literal["offline", "online", "disabled"] = MISSING
    project: str = MISSING
    entity: str | None = MISSING
    dir: str = MISSING
    group: str | None = MISSING
    tags: list[str] = MISSING
    artifacts: bool = MISSING
