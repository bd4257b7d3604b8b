"""A random checkpoint whose decoder is as wide as real ones: what size and speed are measured on without a download.

``python -m qig.export.wide DIR``: LLaVA-OneVision's class, with the vision tower and vocabulary of the embedded model.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from qig.commands import told
from qig.errors import StoreError

MODEL = "tiny_llava_onevision"
HEAD = 64


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m qig.export.wide", description=__doc__)
    parser.add_argument("folder", type=Path, help="directory to write, not there or empty")
    parser.add_argument("--width", type=int, default=2048, help="hidden size, a multiple of 256 (default: 2048)")
    parser.add_argument("--blocks", type=int, default=4, help="decoder blocks (default: 4)")
    options = parser.parse_args(arguments)
    if options.width < 256 or options.width % 256 or options.blocks < 1:
        parser.error("expected a --width that is a multiple of 256, and at least 1 block")
    return told("qig.export.wide", lambda: write_wide(options.folder, options.width, options.blocks))


def write_wide(folder: Path, width: int, blocks: int) -> None:
    """Random bfloat16 weights; the MLP is 3 times as wide, and 4 query heads share a key-value head.

    Raises:
        StoreError: the folder is there and not empty.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise StoreError(f"{folder} is not empty; choose another directory")
    folder.mkdir(parents=True, exist_ok=True)
    import torch

    from qig.environment import quiet
    from qig.models.tiny.build import build_model
    from qig.models.tiny.processors import build_processor

    quiet()
    config = build_model(MODEL).config
    text = config.text_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = width, 3 * width, blocks
    text.num_attention_heads, text.num_key_value_heads = width // HEAD, width // HEAD // 4
    text.layer_types = text.layer_types[:1] * blocks
    torch.manual_seed(0)
    from transformers import LlavaOnevisionForConditionalGeneration

    LlavaOnevisionForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)
    build_processor(MODEL).save_pretrained(folder)


if __name__ == "__main__":
    sys.exit(main())
