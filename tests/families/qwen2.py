"""Qwen2-VL and Qwen2.5-VL as Qwen publishes them: images of any size, positions in three dimensions."""

from __future__ import annotations

from dataclasses import replace

from families.family import CHATML, CLIP_MEAN, CLIP_STD, QWEN2_TOKENIZER, Family

SPECIAL_TOKENS = (
    *CHATML,
    *(f"<|{name}|>" for name in ("object_ref_start", "object_ref_end", "box_start", "box_end", "quad_start")),
    *(f"<|{name}|>" for name in ("quad_end", "vision_start", "vision_end", "vision_pad", "image_pad", "video_pad")),
)
IDS = {
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
}
ENDS = {"bos_token_id": "<|endoftext|>", "eos_token_id": "<|im_end|>"}
TEXT = {
    "attention_dropout": 0.0,
    **ENDS,
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": 256,
    "max_window_layers": 3,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "use_cache": True,
    "use_sliding_window": False,
    "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]},
    "vocab_size": 512,
}
GENERATION = {
    "bos_token_id": "<|endoftext|>",
    "pad_token_id": "<|endoftext|>",
    "do_sample": True,
    "eos_token_id": ["<|im_end|>", "<|endoftext|>"],
    "repetition_penalty": 1.0,
    "temperature": 0.01,
    "top_p": 0.001,
    "top_k": 1,
}
PIXELS = {
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
    "image_processor_type": "Qwen2VLImageProcessor",
}

# Counters of pictures are rendered only with add_vision_id, a system turn is put in front unless there is one.
_PARTS = (
    "{%- for part in turn.content -%}"
    "{%- if part.type == 'image' or 'image' in part or 'image_url' in part -%}"
    "{%- set seen.images = seen.images + 1 -%}"
    "{%- if add_vision_id -%}{{ 'Picture %d: ' % seen.images }}{%- endif -%}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- elif part.type == 'video' or 'video' in part -%}"
    "{%- set seen.videos = seen.videos + 1 -%}"
    "{%- if add_vision_id -%}{{ 'Video %d: ' % seen.videos }}{%- endif -%}"
    "{{ '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{%- elif 'text' in part -%}{{ part.text }}{%- endif -%}"
    "{%- endfor -%}"
)
_SYSTEM = "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"


def chat_template(system: str) -> str:
    return (
        "{%- set seen = namespace(images=0, videos=0) -%}"
        "{%- if messages[0].role != 'system' -%}" + system + "{%- endif -%}"
        "{%- for turn in messages -%}"
        "{{ '<|im_start|>' ~ turn.role ~ '\n' }}"
        "{%- if turn.content is string -%}{{ turn.content }}{%- else -%}" + _PARTS + "{%- endif -%}"
        "{{ '<|im_end|>\n' }}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
    )


QWEN2_VL = Family(
    published="Qwen/Qwen2-VL-7B-Instruct",
    config={
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        **TEXT,
        **IDS,
        "vision_token_id": "<|vision_pad|>",
        "max_position_embeddings": 32768,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.41.2",
        "vision_config": {
            "depth": 2,
            "embed_dim": 64,
            "mlp_ratio": 4,
            "num_heads": 4,
            "in_chans": 3,
            "hidden_size": 128,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "temporal_patch_size": 2,
        },
    },
    files={
        "preprocessor_config.json": {**PIXELS, "processor_class": "Qwen2VLProcessor"},
        "generation_config.json": GENERATION,
    },
    template=chat_template(_SYSTEM),
    template_file="chat_template.json",
    special_tokens=SPECIAL_TOKENS,
    tokenizer=QWEN2_TOKENIZER,
    renamed=((r"^model\.language_model\.", "model."), (r"^model\.visual\.", "visual.")),
    tied=False,
    tensors=(
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.q_proj.bias",
        "model.norm.weight",
        "lm_head.weight",
        "visual.patch_embed.proj.weight",
        "visual.blocks.0.attn.qkv.weight",
        "visual.blocks.1.mlp.fc1.weight",
        "visual.merger.ln_q.weight",
        "visual.merger.mlp.0.weight",
    ),
)

QWEN2_5_VL = replace(
    QWEN2_VL,
    published="Qwen/Qwen2.5-VL-7B-Instruct",
    config={
        **QWEN2_VL.config,
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "max_position_embeddings": 128000,
        # Windows of 112 pixels, 4 x 4 image tokens, as published; every second block (of 32: every eighth) sees all.
        "vision_config": {
            "depth": 4,
            "hidden_act": "silu",
            "hidden_size": 64,
            "intermediate_size": 172,
            "num_heads": 4,
            "in_chans": 3,
            "out_hidden_size": 128,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [1, 3],
            "tokens_per_second": 2,
            "temporal_patch_size": 2,
        },
    },
    files={
        "preprocessor_config.json": {**PIXELS, "processor_class": "Qwen2_5_VLProcessor"},
        "generation_config.json": {**GENERATION, "repetition_penalty": 1.05, "temperature": 1e-06},
    },
    tokenizer={**QWEN2_TOKENIZER, "model_max_length": 131072},
    tensors=(
        "model.embed_tokens.weight",
        "model.layers.2.self_attn.v_proj.bias",
        "lm_head.weight",
        "visual.patch_embed.proj.weight",
        "visual.blocks.3.mlp.gate_proj.bias",
        "visual.blocks.0.norm1.weight",
        "visual.merger.mlp.2.weight",
    ),
)
