"""The native processor: tiles, normalisation and prompt as the published code has them."""

from __future__ import annotations

from transformers import (
    GotOcr2ImageProcessor,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedTokenizerBase,
)
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from qig.models.internvl2.original import Original
from qig.models.internvl2.prompts import chat_template, prompt_of


def build_processor(original: Original, tokenizer: PreTrainedTokenizerBase) -> InternVLProcessor:
    """An image is cut into the grid of tiles nearest to its aspect ratio; a thumbnail follows if it has several.

    Without dynamic tiling the grid is always one tile.
    """
    pixels = {
        "size": {"height": original.tile_size, "width": original.tile_size},
        "image_mean": IMAGENET_DEFAULT_MEAN,
        "image_std": IMAGENET_DEFAULT_STD,
    }
    least, most = original.tiles
    return InternVLProcessor(
        GotOcr2ImageProcessor(crop_to_patches=True, min_patches=least, max_patches=most, **pixels),
        tokenizer,
        InternVLVideoProcessor(**pixels),
        image_seq_length=original.tokens_per_tile,
        chat_template=chat_template(prompt_of(original)),
    )
