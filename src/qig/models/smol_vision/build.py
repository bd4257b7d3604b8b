"""The model before training, and its processor: a small vision tower in front of a pretrained language model."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedTokenizerBase,
)

from qig.data.digitgrid import IMAGE_SIZE
from qig.models.classes import FROM_FILES

IMAGE_TOKENS = 36
# Tokens that the base's vocabulary reserves and this task has no use for, so that its embedding stays as it is.
NAMED = {
    "start_image_token": "<jupyter_start>",
    "end_image_token": "<empty_output>",
    "context_image_token": "<jupyter_output>",
    "video_token": "<jupyter_code>",
}
VISION = {
    "hidden_size": 192,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": [IMAGE_SIZE, IMAGE_SIZE],
    "patch_size": [4, 4],
    "initializer_range": 0.04,
}
TURN_CHANGE, END = "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>"
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE{{ '\n' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>{{ '\n' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{{ '\n' }}{% endif %}"
).replace("IMAGE", NAMED["context_image_token"])
_GREY = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
_SQUARE = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}


def build_processor(base: Path) -> InternVLProcessor:
    """The base's tokenizer beside an image processor; prompts are padded on the left, and have no system turn."""
    tokenizer = AutoTokenizer.from_pretrained(
        base, extra_special_tokens=NAMED, padding_side="left", model_max_length=512, **FROM_FILES
    )
    return InternVLProcessor(
        GotOcr2ImageProcessor(size=_SQUARE, crop_to_patches=False, **_GREY),
        tokenizer,
        InternVLVideoProcessor(size=_SQUARE, **_GREY),
        image_seq_length=IMAGE_TOKENS,
        chat_template=_CHAT_TEMPLATE,
    )


def build_model(base: Path, tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> InternVLForConditionalGeneration:
    """The base's weights behind a vision tower and a projector without training; float32."""
    torch.manual_seed(seed)
    config = InternVLConfig(
        text_config=AutoConfig.from_pretrained(base, **FROM_FILES).to_dict(),
        vision_config=VISION,
        image_token_id=tokenizer.convert_tokens_to_ids(NAMED["context_image_token"]),
        image_seq_length=IMAGE_TOKENS,
        downsample_ratio=0.5,
        tie_word_embeddings=True,
    )
    model = InternVLForConditionalGeneration(config).float()
    language = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, **FROM_FILES)
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.tie_weights()
    end = tokenizer.convert_tokens_to_ids(END)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=end, pad_token_id=end, do_sample=False, max_new_tokens=64
    )
    return model
