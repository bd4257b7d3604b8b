"""What the directory of a published checkpoint consists of, apart from its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Family:
    """One family of published checkpoints, with every size scaled down and nothing else changed.

    Wherever a value of ``config`` is the text of a special token, its id is meant: ids follow the trained tokenizer.

    Attributes:
        published: the checkpoint whose files have this structure.
        config: ``config.json``.
        files: further JSON files by name, as published.
        template: the chat template; ``template_file`` is where it is published (JSON or plain).
        special_tokens: in the order of their ids, which follow those of the trained vocabulary.
        tokenizer: what ``tokenizer_config.json`` says besides the special tokens.
        renamed: pattern and replacement from the names of the model class to the published names of tensors.
        tied: whether the published files leave out the head's weight.
        tensors: a few published names, one of each part of the model.
    """

    published: str
    config: dict[str, Any]
    files: dict[str, dict[str, Any]]
    template: str
    template_file: str
    special_tokens: tuple[str, ...]
    tokenizer: dict[str, Any]
    renamed: tuple[tuple[str, str], ...]
    tied: bool
    tensors: tuple[str, ...]


CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
HALF = [0.5, 0.5, 0.5]

CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN2_TOKENIZER = {
    "add_prefix_space": False,
    "bos_token": None,
    "clean_up_tokenization_spaces": False,
    "eos_token": "<|im_end|>",
    "errors": "replace",
    "model_max_length": 32768,
    "pad_token": "<|endoftext|>",
    "split_special_tokens": False,
    "tokenizer_class": "Qwen2Tokenizer",
    "unk_token": None,
}
