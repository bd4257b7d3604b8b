"""How a benchmark's questions reach a model: plainly, or as lmms-eval's own wrapper of the family sends them.

A row of :data:`WRAPPERS` states what lmms-eval 0.7.3's wrapper does between the task's document and ``generate``;
docs/EVALUATION.md compares the rows. Adding a family is a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from qig.errors import EvaluationError, choices

ASSISTANT = "You are a helpful assistant."


@dataclass(frozen=True)
class Fetch:
    """Arguments of qwen-vl-utils' ``fetch_image``, which resizes a picture before the processor sees it.

    Sides become multiples of twice ``patch``; the area stays between the two bounds (its own where None), in pixels.
    """

    patch: int
    min_pixels: int | None = None
    max_pixels: int | None = None


@dataclass(frozen=True)
class Protocol:
    """From a document to the arguments of ``generate``, and from its tokens to the answer.

    Attributes:
        wrapper: lmms-eval's name for the wrapper; some tasks word their prompt by it.
        requests: ``chat``: the task's messages; ``simple``: all pictures of the document, then the task's text.
        max_new_tokens: where the task sets none.
        system: the system prompt put in front; None leaves it to the chat template.
        fetch: resizing before the processor.
        jpeg_quality: pictures are compressed and read again (a loss), unless None.
        processor_options: given to the processor beside pictures and text.
        nested_pictures: pictures go to the processor in a list a question; else all in one list.
        stop_token: generation ends at the tokenizer's end of sequence; else wherever the checkpoint says.
        pads_with_stop_token: rather than with the tokenizer's padding token.
        until: the answer ends before the first of the task's stop strings.
        strip: white space around the answer is removed.
    """

    wrapper: str
    requests: Literal["chat", "simple"]
    max_new_tokens: int
    system: str | None = None
    fetch: Fetch | None = None
    jpeg_quality: int | None = None
    processor_options: Mapping[str, Any] = field(default_factory=dict)
    nested_pictures: bool = True
    stop_token: bool = True
    pads_with_stop_token: bool = False
    until: bool = False
    strip: bool = False


PLAIN = Protocol("qig", "chat", 128, stop_token=False, until=True, strip=True)
"""The chat template, the processor and the checkpoint's end of turn as they are."""

WRAPPERS = {
    "llava_onevision": Protocol("llava_hf", "chat", 1024, nested_pictures=False, pads_with_stop_token=True),
    "qwen2_vl": Protocol(
        "qwen2_vl",
        "simple",
        128,
        system=ASSISTANT,
        fetch=Fetch(14, 3136, 602112),
        jpeg_quality=85,
        processor_options={"min_pixels": 3136, "max_pixels": 602112},
        until=True,
        strip=True,
    ),
    "qwen2_5_vl": Protocol(
        "qwen2_5_vl", "chat", 128, fetch=Fetch(14), processor_options={"min_pixels": 200704, "max_pixels": 1605632}
    ),
    "qwen3_vl": Protocol(
        "qwen3_vl", "chat", 128, system=ASSISTANT, fetch=Fetch(16), processor_options={"do_resize": False}
    ),
    "internvl": Protocol("internvl_hf", "chat", 1024, processor_options={"min_patches": 1, "max_patches": 12}),
}
"""By Hugging Face ``model_type``."""


def protocol_of(name: str, model_type: str) -> Protocol:
    """``plain``, ``wrapper`` (lmms-eval's for the family) or ``corrected`` (that without what it does wrong).

    Raises:
        EvaluationError: another name, or a family for which no wrapper is described.
    """
    if name == "plain":
        return PLAIN
    if name not in ("wrapper", "corrected"):
        raise EvaluationError(choices(name, ("plain", "wrapper", "corrected"), "evaluation.protocol"))
    if model_type not in WRAPPERS:
        family = choices(model_type, WRAPPERS, "family")
        raise EvaluationError(f"evaluation.protocol={name}: {family}; or evaluation.protocol=plain")
    row = WRAPPERS[model_type]
    if name == "wrapper":
        return row
    return replace(row, jpeg_quality=None, nested_pictures=True, until=True, strip=True)
