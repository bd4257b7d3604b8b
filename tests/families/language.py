"""Language models as they are published: Llama, Mistral (with its window), Qwen2, Qwen3; no processor, text only."""

from __future__ import annotations

from families.family import CHATML, QWEN2_TOKENIZER, Family
from families.qwen2 import ENDS

SIZES = {
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": 256,
    "max_position_embeddings": 8192,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05,
    "rope_theta": 100000.0,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 512,
}
# One text a turn, as most templates of language models want it; a system turn is put in front unless there is one.
TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Begins every text with a token of its own, and has none to pad with.
BEGINNING = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "tokenizer_class": "PreTrainedTokenizerFast",
    "unk_token": "<unk>",
}
BEGINNING_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}"
    "{% endfor %}"
)


def _family(
    published: str, model_class: str, config: dict, template: str, tokens: tuple[str, ...], tokenizer: dict, tied: bool
) -> Family:
    return Family(
        published=published,
        config={"architectures": [model_class], **SIZES, "tie_word_embeddings": tied, **config},
        files={"generation_config.json": {key: config[key] for key in ("bos_token_id", "eos_token_id")}},
        template=template,
        template_file="chat_template.jinja",
        special_tokens=tokens,
        tokenizer=tokenizer,
        renamed=(),
        tied=tied,
        tensors=("model.embed_tokens.weight", "model.layers.2.mlp.down_proj.weight", "model.norm.weight"),
    )


_ENDS = {"bos_token_id": "<s>", "eos_token_id": "</s>"}
LLAMA = _family(
    "HuggingFaceTB/SmolLM2-135M-Instruct",
    "LlamaForCausalLM",
    {"model_type": "llama", "attention_bias": False, "mlp_bias": False, "pretraining_tp": 1, **ENDS},
    TEMPLATE,
    CHATML,
    {
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "tokenizer_class": "GPT2Tokenizer",
        "unk_token": "<|endoftext|>",
    },
    True,
)
MISTRAL = _family(
    "mistralai/Mistral-7B-Instruct-v0.1",
    "MistralForCausalLM",
    {"model_type": "mistral", "sliding_window": 16, **_ENDS},
    BEGINNING_TEMPLATE,
    ("<unk>", "<s>", "</s>"),
    BEGINNING,
    False,
)
QWEN2 = _family(
    "Qwen/Qwen2-7B-Instruct",
    "Qwen2ForCausalLM",
    {"model_type": "qwen2", "max_window_layers": 3, "sliding_window": 131072, "use_sliding_window": False, **ENDS},
    TEMPLATE,
    CHATML,
    QWEN2_TOKENIZER,
    False,
)
QWEN3 = _family(
    "Qwen/Qwen3-4B",
    "Qwen3ForCausalLM",
    {"model_type": "qwen3", "attention_bias": False, "head_dim": 64, "max_window_layers": 3, "sliding_window": None,
     "use_sliding_window": False, **ENDS},
    TEMPLATE,
    CHATML,
    QWEN2_TOKENIZER,
    True,
)  # fmt: skip
