"""By which of transformers' auto classes a checkpoint is opened, and what turns its samples into tensors."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer, ProcessorMixin

from qig.errors import ModelError
from qig.models.architectures import Architecture
from qig.models.text_processor import TextProcessor

Processor = ProcessorMixin | TextProcessor
FROM_FILES = {"local_files_only": True, "trust_remote_code": False}
"""How every checkpoint is opened: no network, and no code but the library's."""


def model_class(architecture: Architecture) -> type[AutoModelForCausalLM | AutoModelForImageTextToText]:
    """The auto class of language models, or that of vision-language models."""
    return AutoModelForCausalLM if architecture.text_only else AutoModelForImageTextToText


def processor_of(directory: Path, architecture: Architecture) -> Processor:
    """The checkpoint's processor; for a language model its tokenizer, called as a processor is.

    Raises:
        ModelError: transformers cannot load it, or finds no tokenizer and makes an empty one.
    """
    try:
        if architecture.text_only:
            processor = TextProcessor(AutoTokenizer.from_pretrained(directory, **FROM_FILES))
        else:
            processor = AutoProcessor.from_pretrained(directory, **FROM_FILES)
    except Exception as error:  # transformers and tokenizers raise whatever they stumble over in a damaged file
        raise unloadable(directory, error) from error
    tokenizer = processor.tokenizer
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        raise ModelError(f"{directory} has no tokenizer; expected its files beside config.json (tokenizer.json, or "
                         "vocab.json and merges.txt, or tokenizer.model)")
    return processor


def unloadable(directory: Path, error: Exception) -> ModelError:
    """What is said of a checkpoint that transformers refuses or stumbles over."""
    asks = "trust_remote_code" in str(error)
    hint = " (code that comes with a checkpoint is never run: only transformers' own classes are)" if asks else ""
    return ModelError(f"{directory} cannot be loaded by transformers: {type(error).__name__}: {error}{hint}")
