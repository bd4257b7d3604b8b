"""A published InternVL2 directory becomes a native one: everything is checked before anything is written."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import InternVLConfig, InternVLForConditionalGeneration
from transformers.core_model_loading import revert_weight_conversion

from qig.errors import ModelError
from qig.models.files import tensor_shapes
from qig.models.internvl2 import shards
from qig.models.internvl2.config import generation_config, native_config
from qig.models.internvl2.original import Original
from qig.models.internvl2.processor import build_processor
from qig.models.internvl2.prompts import IMAGE_TOKEN, prompt_of
from qig.models.internvl2.tensors import OUTPUT, Source, sources
from qig.models.internvl2.tokenizer import build_tokenizer


def convert(directory: Path, folder: Path) -> None:
    """Weights keep their dtype and pass through memory a shard at a time; ``config.json`` is written last.

    Raises:
        ModelError: see ``qig.models.internvl2.convert``.
    """
    if not folder.is_dir() or any(folder.iterdir()):
        raise ModelError(f"{folder} is not an empty directory: a converted checkpoint needs one of its own")
    original = Original(directory)
    tensor_shapes(directory)  # a truncated file is named before safetensors sees it
    reader = shards.Reader(directory)
    tokenizer = build_tokenizer(original, directory)
    processor = build_processor(original, tokenizer)
    tied = bool(original.text.get("tie_word_embeddings")) and OUTPUT[original.is_internlm2] not in reader.names()
    config = native_config(original, tokenizer.convert_tokens_to_ids(IMAGE_TOKEN), tied)
    parts = sources(original, reader.names())
    outlines = _outlines(reader, parts)
    _refuse_other_tensors(directory, outlines, parts, expected_tensors(config))

    shards.write(reader, parts, outlines, folder)
    processor.save_pretrained(folder)
    generation_config(tokenizer, prompt_of(original).end).save_pretrained(folder)
    config.save_pretrained(folder)


def expected_tensors(config: InternVLConfig) -> dict[str, Tensor]:
    """What the native class saves under this configuration, on the meta device.

    Raises:
        ModelError: the native class refuses the configuration.
    """
    try:
        with torch.device("meta"):
            model = InternVLForConditionalGeneration(config)
    except (KeyError, ValueError) as error:  # an unknown activation, heads that do not divide the channels
        raise ModelError(f"transformers cannot build the model of this configuration: {error}") from error
    state = model.state_dict()
    if config.tie_word_embeddings:
        state.pop("lm_head.weight")
    return revert_weight_conversion(model, state)


def _outlines(reader: shards.Reader, parts: dict[str, Source]) -> dict[str, Tensor]:
    outlines = {}
    for native, part in parts.items():
        outline = reader.outline(part.name)
        try:
            outlines[native] = part.part_of(outline)
        except RuntimeError as error:
            raise ModelError(f"{part.name} {tuple(outline.shape)} does not fit the configuration: {error}") from error
    return outlines


def _refuse_other_tensors(
    directory: Path, outlines: dict[str, Tensor], parts: dict[str, Source], expected: dict[str, Tensor]
) -> None:
    missing = sorted(expected.keys() - outlines.keys())
    if missing:
        raise ModelError(f"{directory} lacks {len(missing)} weights of the model: {', '.join(missing[:3])}")
    unknown = sorted(parts[name].name for name in outlines.keys() - expected.keys())
    if unknown:
        raise ModelError(f"{directory} holds {len(unknown)} weights the model has not: {', '.join(unknown[:3])}")
    for name, outline in outlines.items():
        if outline.shape != expected[name].shape:
            raise ModelError(
                f"{directory}: {parts[name].name} makes {name} of shape {tuple(outline.shape)}, "
                f"but the configuration says {tuple(expected[name].shape)}"
            )
