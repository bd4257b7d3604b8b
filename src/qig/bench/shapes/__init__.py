"""Published sizes of text models: data files beside this one."""

from __future__ import annotations

from pathlib import Path

SHAPES = {file.stem: file for file in sorted(Path(__file__).parent.glob("*.yaml"))}
