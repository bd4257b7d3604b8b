"""LLaVA-OneVision as llava-hf publishes it: SigLIP over an image and its tiles, a token at the end of each row."""

from __future__ import annotations

from families.family import CHATML, HALF, QWEN2_TOKENIZER, Family

SIDE = 60  # of 384; not a multiple of the patch size either
PINPOINTS = [[rows * SIDE, columns * SIDE] for rows in range(1, 7) for columns in range(1, 7)]

# Images first, each turn's text on a new line, no line break behind a turn.
TEMPLATE = (
    "{%- for turn in messages -%}"
    "{{ '<|im_start|>' ~ turn.role ~ ' ' }}"
    "{%- for kind in ['image', 'video'] -%}"
    "{%- for part in turn.content if part.type == kind -%}{{ '<' ~ kind ~ '>' }}{%- endfor -%}"
    "{%- endfor -%}"
    "{%- for part in turn.content if part.type == 'text' -%}{{ '\n' ~ part.text }}{%- endfor -%}"
    "{{ '<|im_end|>' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)

LLAVA_ONEVISION = Family(
    published="llava-hf/llava-onevision-qwen2-7b-ov-hf",
    config={
        "architectures": ["LlavaOnevisionForConditionalGeneration"],
        "ignore_index": -100,
        "image_grid_pinpoints": PINPOINTS,
        "image_token_index": "<image>",
        "model_type": "llava_onevision",
        "projector_hidden_act": "gelu",
        "text_config": {
            "_name_or_path": "Qwen/Qwen2-7B-Instruct",
            "architectures": ["Qwen2ForCausalLM"],
            "bos_token_id": "<|endoftext|>",
            "eos_token_id": "<|im_end|>",
            "hidden_size": 128,
            "intermediate_size": 256,
            "max_window_layers": 3,
            "model_type": "qwen2",
            "num_attention_heads": 4,
            "num_hidden_layers": 3,
            "num_key_value_heads": 2,
            "rope_theta": 1000000.0,
            "sliding_window": 131072,
            "torch_dtype": "bfloat16",
            "vocab_size": 512,
        },
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "transformers_version": "4.45.0.dev0",
        "use_image_newline_parameter": True,
        "video_token_index": "<video>",
        "vision_aspect_ratio": "anyres_max_9",
        "vision_config": {
            "hidden_size": 64,
            "image_size": SIDE,
            "intermediate_size": 128,
            "model_type": "siglip_vision_model",
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "patch_size": 14,
            "vision_use_head": False,
        },
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
    },
    files={
        "preprocessor_config.json": {
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_pad": True,
            "do_rescale": True,
            "do_resize": True,
            "image_grid_pinpoints": PINPOINTS,
            "image_mean": HALF,
            "image_processor_type": "LlavaOnevisionImageProcessor",
            "image_std": HALF,
            "processor_class": "LlavaOnevisionProcessor",
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"height": SIDE, "width": SIDE},
        },
        "processor_config.json": {
            "image_token": "<image>",
            "num_image_tokens": 16,  # of 729
            "processor_class": "LlavaOnevisionProcessor",
            "video_token": "<video>",
            "vision_feature_select_strategy": "full",
        },
        "generation_config.json": {
            "bos_token_id": "<|endoftext|>",
            "eos_token_id": ["<|im_end|>", "<|endoftext|>"],
            "pad_token_id": "<|endoftext|>",
        },
    },
    template=TEMPLATE,
    template_file="chat_template.json",
    special_tokens=(*CHATML, "<image>", "<video>"),
    tokenizer={**QWEN2_TOKENIZER, "processor_class": "LlavaOnevisionProcessor"},
    renamed=(
        (r"^model\.language_model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^model\.vision_tower\.", "vision_tower.vision_model."),
        (r"^model\.", ""),
    ),
    tied=False,
    tensors=(
        "image_newline",
        "language_model.lm_head.weight",
        "language_model.model.layers.0.self_attn.q_proj.bias",
        "language_model.model.norm.weight",
        "multi_modal_projector.linear_1.weight",
        "vision_tower.vision_model.embeddings.position_embedding.weight",
        "vision_tower.vision_model.encoder.layers.1.self_attn.q_proj.weight",
        "vision_tower.vision_model.post_layernorm.weight",
    ),
)
