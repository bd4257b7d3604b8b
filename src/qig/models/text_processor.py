"""A tokenizer in the place of a processor: calibration and evaluation then know one interface only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import BatchFeature, PreTrainedTokenizerBase

from qig.errors import DataError


class TextProcessor:
    """The tokenizer of a language model, called like the processor of a vision-language model.

    A tokenizer without a padding token (Llama's, Mistral's) pads with the token that ends a sequence: padding is masked
    in any case.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    def __call__(
        self,
        images: Sequence | None = None,
        text: Sequence[str] = (),
        return_text_replacement_offsets: bool = False,
        **options: Any,
    ) -> BatchFeature:
        """Tokens of the texts, in which nothing is ever replaced; ``options`` are the tokenizer's.

        Raises:
            DataError: there are images.
        """
        if images:
            raise DataError("the model is a language model and takes no images")
        return BatchFeature(dict(self.tokenizer(list(text), **options)))

    def apply_chat_template(self, conversation: Sequence[Mapping[str, Any]], **options: Any) -> Any:
        """The tokenizer's template, which takes the content of a turn as one text.

        Raises:
            DataError: a turn has an image.
            ValueError: the tokenizer has no template (a model that was not made for dialogues).
        """
        turns = [{**turn, "content": _joined(turn["content"])} for turn in conversation]
        return self.tokenizer.apply_chat_template(turns, **options)

    def batch_decode(self, ids: Any, **options: Any) -> list[str]:
        """The tokenizer's."""
        return self.tokenizer.batch_decode(ids, **options)


def _joined(content: str | Sequence[Mapping[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    if any(part["type"] != "text" for part in content):
        raise DataError("the model is a language model and takes no images")
    return "".join(part["text"] for part in content)
