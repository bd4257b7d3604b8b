"""Real processors of the tiny models: a word-level fast tokenizer, an image processor and a chat template."""

from __future__ import annotations

from collections.abc import Callable

from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    GotOcr2ImageProcessor,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from qig.data.digitgrid import IMAGE_SIZE, SPECIAL_TOKENS, VOCABULARY
from qig.errors import ModelError, choices

# One turn reads <|im_start|>user IMAGE TEXT<|im_end|>; there is no system turn. Whitespace is no token.
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_MARKED_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
_BARE_IMAGE = "<|image_pad|>"

_GREY = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
_SQUARE = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}


def build_tokenizer(named_tokens: dict[str, str]) -> PreTrainedTokenizerFast:
    """Splits at whitespace and punctuation, ignores case; ``named_tokens`` become attributes, as InternVL needs.

    ``extra_special_tokens`` replaces the list of additional special tokens, so every special token must be in it.
    """
    tokenizer = Tokenizer(WordLevel(VOCABULARY, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    own = {"<|endoftext|>", "<|im_end|>", "<unk>"}
    others = [token for token in SPECIAL_TOKENS if token not in own and token not in named_tokens.values()]
    special = named_tokens | {f"{token.strip('<|>')}_token": token for token in others}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<unk>",
        extra_special_tokens=special,
        padding_side="left",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    return fast


def _qwen2_vl() -> Qwen2VLProcessor:
    area = {"shortest_edge": IMAGE_SIZE**2, "longest_edge": IMAGE_SIZE**2}  # Qwen2-VL bounds areas, not edges
    patches = {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2, "size": area, **_GREY}
    return Qwen2VLProcessor(
        Qwen2VLImageProcessor(**patches),
        build_tokenizer({"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}),
        Qwen2VLVideoProcessor(**patches),
        chat_template=_CHAT_TEMPLATE.replace("IMAGE", _MARKED_IMAGE),
    )


def _llava_onevision() -> LlavaOnevisionProcessor:
    return LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=_SQUARE, image_grid_pinpoints=[[IMAGE_SIZE, IMAGE_SIZE]], **_GREY),
        build_tokenizer({"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}),
        LlavaOnevisionVideoProcessor(size=_SQUARE, **_GREY),
        num_image_tokens=36,
        vision_feature_select_strategy="full",
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
        vision_aspect_ratio="anyres_max_9",
        chat_template=_CHAT_TEMPLATE.replace("IMAGE", _BARE_IMAGE),
    )


def _internvl() -> InternVLProcessor:
    named = {
        "start_image_token": "<|vision_start|>",
        "end_image_token": "<|vision_end|>",
        "context_image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
    }
    return InternVLProcessor(
        GotOcr2ImageProcessor(size=_SQUARE, crop_to_patches=False, **_GREY),
        build_tokenizer(named),
        InternVLVideoProcessor(size=_SQUARE, **_GREY),
        image_seq_length=36,
        chat_template=_CHAT_TEMPLATE.replace("IMAGE", _BARE_IMAGE),
    )


_BUILD: dict[str, Callable[[], ProcessorMixin]] = {
    "tiny_qwen2_vl": _qwen2_vl,
    "tiny_llava_onevision": _llava_onevision,
    "tiny_internvl": _internvl,
}


def build_processor(name: str) -> ProcessorMixin:
    """The processor of a tiny model, ready for ``save_pretrained``; prompts are padded on the left."""
    if name not in _BUILD:
        raise ModelError(choices(name, _BUILD, "tiny model"))
    return _BUILD[name]()
