"""A vision-language model on pretrained weights: an InternVL whose language model is SmolLM2-135M, taught DigitGrid.

What was trained here (vision tower, projector, a LoRA of the language model) is shipped; the base is not.
"""

from __future__ import annotations

from pathlib import Path

NAME = "smol_internvl"
HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
PARTS = Path(__file__).parent / "trained"
