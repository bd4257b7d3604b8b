"""SmolVLM and SmolVLM2 as HuggingFaceTB publishes them: SigLIP over a grid of tiles, pixel shuffle, a SmolLM2."""

from __future__ import annotations

from dataclasses import replace

from families.family import CHATML, HALF, Family

SIDE = 88  # of 384; not a multiple of the patch size either
TILES = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
ADDED = ("<image>", "<fake_token_around_image>", "<end_of_utterance>")

# One start token for the whole dialogue; a space behind the role's colon unless an image follows.
TEMPLATE = (
    "{{ '<|im_start|>' }}"
    "{%- for turn in messages -%}"
    "{{ turn.role | capitalize ~ (':' if turn.content[0].type == 'image' else ': ') }}"
    "{%- for part in turn.content -%}"
    "{%- if part.type == 'image' -%}{{ '<image>' }}{%- elif part.type == 'text' -%}{{ part.text }}{%- endif -%}"
    "{%- endfor -%}"
    "{{ '<end_of_utterance>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'Assistant:' }}{%- endif -%}"
)

TEXT_CONFIG = {
    "_flash_attn_2_enabled": True,
    "architectures": ["VLlama3ForCausalLM"],
    "head_dim": 32,
    "hidden_size": 128,
    "intermediate_size": 256,
    "is_llama_config": True,
    "max_position_embeddings": 8192,
    "model_type": "llama",
    "neftune_noise_alpha": 0.0,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 4,  # as published, no grouped queries
    "pad_token_id": "<|im_end|>",
    "pixel_shuffle_factor": 3,
    "qk_layer_norms": False,
    "rms_norm_eps": 1e-05,
    "rope_interleaved": False,
    "rope_theta": 130000,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_resampler": False,
    "vocab_size": 512,
}
VISION_CONFIG = {
    "hidden_size": 64,
    "image_size": SIDE,
    "intermediate_size": 128,
    "max_image_size": {"longest_edge": SIDE},
    "model_type": "smolvlm_vision",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "patch_size": 14,
    "size": {"longest_edge": 4 * SIDE},
    "tie_word_embeddings": False,
    "use_base_siglip": False,
}
PIXELS = {
    "do_convert_rgb": True,
    "do_image_splitting": True,
    "do_normalize": True,
    "do_pad": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": HALF,
    "image_processor_type": "SmolVLMImageProcessor",
    "image_std": HALF,
    "max_image_size": {"longest_edge": SIDE},
    "processor_class": "SmolVLMProcessor",
    "resample": 1,
    "rescale_factor": 1 / 255,
    "size": {"longest_edge": 4 * SIDE},
}
TOKENIZER = {
    "add_prefix_space": False,
    "bos_token": "<|im_start|>",
    "clean_up_tokenization_spaces": False,
    "eos_token": "<end_of_utterance>",
    "model_max_length": 16384,
    "pad_token": "<|im_end|>",
    "processor_class": "SmolVLMProcessor",
    "tokenizer_class": "GPT2Tokenizer",
    "truncation_side": "left",
    "unk_token": "<|endoftext|>",
}

SMOLVLM2 = Family(
    published="HuggingFaceTB/SmolVLM2-2.2B-Instruct",
    config={
        "architectures": ["SmolVLMForConditionalGeneration"],
        "image_token_id": "<image>",
        "model_type": "smolvlm",
        "scale_factor": 3,
        "text_config": TEXT_CONFIG,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.47.1",
        "use_cache": False,
        "use_reentrant_checkpointing": False,
        "vision_config": VISION_CONFIG,
        "vocab_size": 512,
    },
    files={
        "preprocessor_config.json": {
            **PIXELS,
            "video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": SIDE}},
        },
        "processor_config.json": {"image_seq_len": 4, "processor_class": "SmolVLMProcessor"},  # of 81
        "generation_config.json": {
            "bos_token_id": "<|im_start|>",
            "eos_token_id": "<end_of_utterance>",
            "pad_token_id": "<|im_end|>",
        },
    },
    template=TEMPLATE,
    template_file="chat_template.json",
    special_tokens=(*CHATML, "<global-img>", *TILES, *ADDED),
    tokenizer=TOKENIZER,
    renamed=(),
    tied=False,
    tensors=(
        "lm_head.weight",
        "model.connector.modality_projection.proj.weight",
        "model.text_model.layers.0.self_attn.q_proj.weight",
        "model.text_model.norm.weight",
        "model.vision_model.embeddings.position_embedding.weight",
        "model.vision_model.encoder.layers.1.mlp.fc1.weight",
        "model.vision_model.post_layernorm.weight",
    ),
)

SMOLVLM = replace(
    SMOLVLM2,
    published="HuggingFaceTB/SmolVLM-Instruct",
    config={
        **SMOLVLM2.config,
        "architectures": ["Idefics3ForConditionalGeneration"],
        "model_type": "idefics3",
        "vision_config": {**VISION_CONFIG, "model_type": "idefics3"},
    },
    files={
        **SMOLVLM2.files,
        "preprocessor_config.json": {
            **PIXELS,
            "image_processor_type": "Idefics3ImageProcessor",
            "processor_class": "Idefics3Processor",
        },
        "processor_config.json": {"image_seq_len": 4, "processor_class": "Idefics3Processor"},
    },
    tokenizer={**TOKENIZER, "processor_class": "Idefics3Processor"},
)
