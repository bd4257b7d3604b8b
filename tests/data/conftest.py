"""Processors of every family with small tokenizers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

TRAINED_ON = [
    "describe the image\n\nin detail.\n the image shows\n\n\n a red seven and a blue three \n",
    "user\n\nassistant\n\n user\n  assistant: Naïve café 😀 \n\nQ: what?\n\nA: 42\n\n",
] * 20


@pytest.fixture(scope="session")
def processor_of():
    """``processor_of(name, byte_level=False)``: a tiny model's processor, if asked for with a byte-level tokenizer."""
    from functools import cache

    from qig.models.tiny.processors import build_processor

    @cache
    def make(name: str, byte_level: bool = False):
        processor = build_processor(name)
        if byte_level:
            use_tokenizer(processor, byte_level_tokenizer(processor.tokenizer))
        return processor

    return make


@pytest.fixture(scope="session")
def no_model():
    """All that collating needs of a model: its precision."""
    return SimpleNamespace(dtype=torch.float32)


def byte_level_tokenizer(like):
    """A byte-level BPE whose merges cross from the template into texts (line breaks); special tokens as in ``like``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TRAINED_ON, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={key: value for key, value in like.special_tokens_map.items() if key not in ORDINARY}
        | {"im_start_token": "<|im_start|>"},
        padding_side="left",
    )


ORDINARY = ("bos_token", "eos_token", "pad_token", "unk_token")


def use_tokenizer(processor, tokenizer) -> None:
    processor.tokenizer = tokenizer
    for name in ("image_token", "video_token", "start_image_token", "end_image_token"):
        if hasattr(processor, name):
            setattr(processor, f"{name}_id", tokenizer.convert_tokens_to_ids(getattr(processor, name)))
