"""Tiny vision-language models on the real Hugging Face classes, trained on DigitGrid and shipped with the package."""

from __future__ import annotations

from pathlib import Path

from qig.errors import ModelError, choices

TINY_MODELS = ("tiny_qwen2_vl", "tiny_llava_onevision", "tiny_internvl")


def checkpoint_dir(name: str) -> Path:
    """Folder of a shipped checkpoint, in the layout of ``save_pretrained``: model, processor, card, record."""
    if name not in TINY_MODELS:
        raise ModelError(choices(name, TINY_MODELS, "tiny model"))
    return Path(__file__).parent / "checkpoints" / name
