"""Configurations and untrained weights of the tiny models.

All three share one decoder: hidden size 128, 6 layers, 4 heads of 32 (2 for keys and values), MLP 384, so that every
linear's input is a multiple of 128, the default group size of weight quantization.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import (
    GenerationConfig,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedModel,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from qig.data.digitgrid import IMAGE_SIZE, VOCABULARY
from qig.errors import ModelError, choices

IMAGE_TOKEN_ID = VOCABULARY["<|image_pad|>"]
END_OF_TURN_ID = VOCABULARY["<|im_end|>"]
PAD_ID = VOCABULARY["<|endoftext|>"]

INIT_STD = 0.04
VISION_DEPTH = 2
VISION_WIDTH = 96
VISION_HEADS = 4


def _decoder() -> dict:
    return {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "initializer_range": INIT_STD,
        "bos_token_id": PAD_ID,
        "eos_token_id": END_OF_TURN_ID,
        "pad_token_id": PAD_ID,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }


def _qwen2_vl() -> Qwen2VLForConditionalGeneration:
    """36 image tokens: patches of 4 pixels, merged two by two, with rotary positions in three dimensions."""
    decoder = _decoder()
    decoder["rope_parameters"]["mrope_section"] = [4, 6, 6]  # halves of a head of 32: time, height, width
    vision = {
        "depth": VISION_DEPTH,
        "embed_dim": VISION_WIDTH,
        "hidden_size": decoder["hidden_size"],
        "num_heads": VISION_HEADS,
        "mlp_ratio": 4,
        "patch_size": 4,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "initializer_range": INIT_STD,
    }
    config = Qwen2VLConfig(
        text_config=decoder,
        vision_config=vision,
        image_token_id=IMAGE_TOKEN_ID,
        video_token_id=VOCABULARY["<|video_pad|>"],
        vision_start_token_id=VOCABULARY["<|vision_start|>"],
        vision_end_token_id=VOCABULARY["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    return Qwen2VLForConditionalGeneration(config)


def _llava_onevision() -> LlavaOnevisionForConditionalGeneration:
    """78 image tokens: SigLIP patches of 8 pixels give 36 of the whole image, 36 of its one tile, 6 line ends."""
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": VISION_WIDTH,
        "intermediate_size": 4 * VISION_WIDTH,
        "num_hidden_layers": VISION_DEPTH,
        "num_attention_heads": VISION_HEADS,
        "image_size": IMAGE_SIZE,
        "patch_size": 8,
        "vision_use_head": False,
        "initializer_range": INIT_STD,
    }
    config = LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", "tie_word_embeddings": True, **_decoder()},
        vision_config=vision,
        image_token_index=IMAGE_TOKEN_ID,
        video_token_index=VOCABULARY["<|video_pad|>"],
        image_grid_pinpoints=[[IMAGE_SIZE, IMAGE_SIZE]],
        vision_aspect_ratio="anyres_max_9",
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )
    return LlavaOnevisionForConditionalGeneration(config)


def _internvl() -> InternVLForConditionalGeneration:
    """36 image tokens: patches of 4 pixels, four of which pixel shuffle makes one."""
    vision = {
        "hidden_size": VISION_WIDTH,
        "intermediate_size": 4 * VISION_WIDTH,
        "num_hidden_layers": VISION_DEPTH,
        "num_attention_heads": VISION_HEADS,
        "image_size": [IMAGE_SIZE, IMAGE_SIZE],
        "patch_size": [4, 4],
        "initializer_range": INIT_STD,
    }
    config = InternVLConfig(
        text_config={"model_type": "qwen2", "tie_word_embeddings": True, **_decoder()},
        vision_config=vision,
        image_token_id=IMAGE_TOKEN_ID,
        image_seq_length=36,
        downsample_ratio=0.5,
        tie_word_embeddings=True,
    )
    return InternVLForConditionalGeneration(config)


_BUILD: dict[str, Callable[[], PreTrainedModel]] = {
    "tiny_qwen2_vl": _qwen2_vl,
    "tiny_llava_onevision": _llava_onevision,
    "tiny_internvl": _internvl,
}


@torch.no_grad()
def _start_as_similarity(model: PreTrainedModel) -> None:
    """Make keys a copy of their group's first query, enlarged: attention then begins by matching equal content.

    The look-ups are found in a few hundred steps from this start and often not at all without it.
    """
    for layer in model.model.language_model.layers:
        query, key = layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight
        head = layer.self_attn.head_dim
        query.mul_(3)
        per_group = query.shape[0] // key.shape[0]
        key.copy_(query.view(-1, per_group, head, query.shape[1])[:, 0].reshape_as(key))


def build_model(name: str, seed: int = 0) -> PreTrainedModel:
    """An untrained model in float32 whose generation stops at the end of the turn."""
    if name not in _BUILD:
        raise ModelError(choices(name, _BUILD, "tiny model"))
    torch.manual_seed(seed)
    model = _BUILD[name]()
    _start_as_similarity(model)
    model.generation_config = GenerationConfig(
        bos_token_id=PAD_ID, eos_token_id=END_OF_TURN_ID, pad_token_id=PAD_ID, do_sample=False, max_new_tokens=64
    )
    return model
