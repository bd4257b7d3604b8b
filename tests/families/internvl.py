"""InternVL3 as OpenGVLab publishes it for the native class (-hf): InternViT over tiles, pixel shuffle, a Qwen2."""

from __future__ import annotations

from families.family import CHATML, IMAGENET_MEAN, IMAGENET_STD, QWEN2_TOKENIZER, Family

SIDE = 112  # of 448
NAMED_TOKENS = {
    "context_image_token": "<IMG_CONTEXT>",
    "end_image_token": "</img>",
    "start_image_token": "<img>",
    "video_token": "<video>",
}

TEMPLATE = (
    "{%- set placeholder = {'image': '<IMG_CONTEXT>\n', 'video': '<video>\n'} -%}"
    "{%- for turn in messages -%}"
    "{{ '<|im_start|>' ~ turn.role ~ '\n' }}"
    "{%- if turn.content is string -%}{{ turn.content }}{%- else -%}"
    "{%- for part in turn.content -%}{{ part.text if part.type == 'text' else placeholder[part.type] }}{%- endfor -%}"
    "{%- endif -%}"
    "{{ '<|im_end|>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)

INTERNVL3 = Family(
    published="OpenGVLab/InternVL3-8B-hf",
    config={
        "architectures": ["InternVLForConditionalGeneration"],
        "downsample_ratio": 0.5,
        "image_seq_length": 16,  # of 256
        "image_token_id": "<IMG_CONTEXT>",
        "model_type": "internvl",
        "projector_hidden_act": "gelu",
        "text_config": {
            "_attn_implementation_autoset": True,
            "architectures": ["Qwen2ForCausalLM"],
            "attention_dropout": 0.0,
            "bos_token_id": "<|endoftext|>",
            "eos_token_id": "<|im_end|>",
            "hidden_act": "silu",
            "hidden_size": 128,
            "initializer_range": 0.02,
            "intermediate_size": 256,
            "max_position_embeddings": 32768,
            "max_window_layers": 3,
            "model_type": "qwen2",
            "num_attention_heads": 4,
            "num_hidden_layers": 3,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-06,
            "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"},
            "rope_theta": 1000000.0,
            "sliding_window": None,
            "torch_dtype": "bfloat16",
            "use_cache": True,
            "use_sliding_window": False,
            "vocab_size": 512,
        },
        "torch_dtype": "bfloat16",
        "transformers_version": "4.52.0.dev0",
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "attention_bias": True,
            "attention_dropout": 0.0,
            "dropout": 0.0,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.0,
            "hidden_size": 64,
            "image_size": [SIDE, SIDE],
            "initializer_factor": 0.1,
            "initializer_range": 1e-10,
            "intermediate_size": 256,
            "layer_norm_eps": 1e-06,
            "layer_scale_init_value": 0.1,
            "model_type": "internvl_vision",
            "norm_type": "layer_norm",
            "num_attention_heads": 4,
            "num_channels": 3,
            "num_hidden_layers": 2,
            "patch_size": [14, 14],
            "projection_dropout": 0.0,
            "torch_dtype": "bfloat16",
            "use_absolute_position_embeddings": True,
            "use_mask_token": False,
            "use_mean_pooling": True,
            "use_qk_norm": False,
        },
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
    },
    files={
        "preprocessor_config.json": {
            "crop_size": None,
            "crop_to_patches": False,  # the processor class turns it on
            "data_format": "channels_first",
            "default_to_square": True,
            "device": None,
            "do_center_crop": None,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": IMAGENET_MEAN,
            "image_processor_type": "GotOcr2ImageProcessorFast",
            "image_std": IMAGENET_STD,
            "input_data_format": None,
            "max_patches": 12,
            "min_patches": 1,
            "processor_class": "InternVLProcessor",
            "resample": 3,
            "rescale_factor": 1 / 255,
            "return_tensors": None,
            "size": {"height": SIDE, "width": SIDE},
        },
        "processor_config.json": {"image_seq_length": 16, "processor_class": "InternVLProcessor"},
        "generation_config.json": {"bos_token_id": "<|endoftext|>", "eos_token_id": "<|im_end|>"},
    },
    template=TEMPLATE,
    template_file="chat_template.jinja",
    special_tokens=(
        *CHATML,
        "<img>",
        "</img>",
        "<IMG_CONTEXT>",
        "<quad>",
        "</quad>",
        "<ref>",
        "</ref>",
        "<box>",
        "</box>",
        "<video>",
    ),
    tokenizer={
        **QWEN2_TOKENIZER,
        **NAMED_TOKENS,
        "extra_special_tokens": NAMED_TOKENS,
        "model_max_length": 8192,
        "processor_class": "InternVLProcessor",
        "return_token_type_ids": False,
    },
    renamed=(
        (r"^model\.language_model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^model\.", ""),
    ),
    tied=False,
    tensors=(
        "language_model.lm_head.weight",
        "language_model.model.layers.2.mlp.gate_proj.weight",
        "multi_modal_projector.layer_norm.weight",
        "vision_tower.embeddings.cls_token",
        "vision_tower.encoder.layer.0.lambda_1",
        "vision_tower.encoder.layer.1.attention.projection_layer.weight",
    ),
)
