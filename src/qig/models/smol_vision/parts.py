"""What was trained, as files: tower and projector, and the LoRA as PEFT writes it; the whole model is made of them."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import InternVLForConditionalGeneration

from qig.errors import ModelError
from qig.models.smol_vision.build import build_model, build_processor

SIGHT, ADAPTER = "sight.safetensors", "adapter"


def _sight(model: InternVLForConditionalGeneration) -> nn.ModuleDict:
    inner = model.model
    return nn.ModuleDict({"vision_tower": inner.vision_tower, "multi_modal_projector": inner.multi_modal_projector})


def save(model: InternVLForConditionalGeneration, folder: Path) -> None:
    """Tower and projector in float16, and the adapter if there is one by now."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.half().contiguous() for name, value in _sight(model).state_dict().items()}, folder / SIGHT)
    language = model.model.language_model
    if isinstance(language, PeftModel):
        language.save_pretrained(folder / ADAPTER)


def load(model: InternVLForConditionalGeneration, folder: Path, trainable: bool = False) -> None:
    """Put saved parts into an untrained model, in place; the adapter stands beside the base's weights.

    Raises:
        ModelError: the folder does not hold them.
    """
    if not (folder / SIGHT).is_file():
        raise ModelError(f"{folder} holds no {SIGHT}: expected the folder of an earlier training")
    _sight(model).load_state_dict(load_file(folder / SIGHT))
    if (folder / ADAPTER).is_dir():
        inner = model.model
        inner.language_model = PeftModel.from_pretrained(
            inner.language_model, folder / ADAPTER, is_trainable=trainable
        )


def assemble(base: Path, folder: Path, target: Path) -> None:
    """Write the whole model into ``target``, adapter merged, in float16, with its processor."""
    processor = build_processor(base)
    model = build_model(base, processor.tokenizer)
    load(model, folder)
    inner = model.model
    if isinstance(inner.language_model, PeftModel):
        inner.language_model = inner.language_model.merge_and_unload()
    model.tie_weights()
    model.to(torch.float16).save_pretrained(target)
    processor.save_pretrained(target)
