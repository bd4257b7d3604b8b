"""By which of transformers' auto classes a checkpoint is opened, and what turns its samples into tensors."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer, ProcessorMixin

from qig.errors import ModelError
from qig.models.architectures import Architecture
from qig.models.text_processor import TextProcessor

Processor = ProcessorMixin | TextProcessor


def model_class(architecture: Architecture) -> type[AutoModelForCausalLM | AutoModelForImageTextToText]:
    """The auto class of language models, or that of vision-language models."""
    return AutoModelForCausalLM if architecture.text_only else AutoModelForImageTextToText


def processor_of(directory: Path, architecture: Architecture) -> Processor:
    """The checkpoint's processor; for a language model its tokenizer, called as a processor is.

    Raises:
        ModelError: transformers cannot load it.
    """
    try:
        if architecture.text_only:
            return TextProcessor(AutoTokenizer.from_pretrained(directory, local_files_only=True))
        return AutoProcessor.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise ModelError(f"{directory} cannot be loaded by transformers: {error}") from error
