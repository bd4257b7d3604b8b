"""Checkpoint directories as OpenGVLab publishes InternVL2: real file names, keys and structure, tiny dimensions."""

from __future__ import annotations

import io
import json
from pathlib import Path

import sentencepiece
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, trainers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import Qwen2Tokenizer
from transformers.utils import sentencepiece_model_pb2_new as sentencepiece_schema

CORPUS = [
    "What digit is in the top left cell? Answer with a single word.",
    "A photo of three cats and 2 dogs, sitting on a brown sofa near the window.",
    "The quick brown fox jumps over the lazy dog; the dog does not care.",
    "Describe the image in detail. How many people are there, and what do they do?",
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL",
    "system user assistant question answer image picture number colour",
]
IMAGE_TOKENS = ["<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"]
# InternLM2 gives the ids of its last unused pieces to these.
CHAT_TOKENS = ["<|plugin|>", "<|interpreter|>", "<|action_end|>", "<|action_start|>", "<|im_end|>", "<|im_start|>"]
UNUSED = [f"[UNUSED_TOKEN_{i}]" for i in range(139, 147)]

VISION = {
    "300m": {"norm_type": "layer_norm", "qk_normalization": False, "qkv_bias": True},
    "6b": {"norm_type": "rms_norm", "qk_normalization": True, "qkv_bias": False},
}
REMOTE = "raise SystemExit('remote code was executed')\n"
PUBLISHED_SYSTEM = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
)


def config(text: str, vision: str, vocab_size: int) -> dict:
    """``config.json`` of InternVL2-2B (``internlm2``) or -1B (``qwen2``), with the tower of 300M or 6B, scaled down."""
    shared = {
        "vocab_size": vocab_size,
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.37.2",
        "use_cache": True,
        "tie_word_embeddings": False,
    }
    internlm2 = {
        "_name_or_path": "internlm/internlm2-chat-1_8b",
        "architectures": ["InternLM2ForCausalLM"],
        "attn_implementation": "eager",
        "auto_map": {
            "AutoConfig": "configuration_internlm2.InternLM2Config",
            "AutoModelForCausalLM": "modeling_internlm2.InternLM2ForCausalLM",
        },
        "bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "max_position_embeddings": 4096,
        "model_type": "internlm2",
        "rms_norm_eps": 1e-05,
        "rope_scaling": {"factor": 2.0, "type": "dynamic"},
        "rope_theta": 1000000,
    }
    qwen2 = {
        "_name_or_path": "Qwen/Qwen2-0.5B-Instruct",
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": vocab_size - 12,
        "eos_token_id": vocab_size - 10,
        "max_position_embeddings": 4096,
        "max_window_layers": 24,
        "model_type": "qwen2",
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "use_sliding_window": False,
    }
    return {
        "_commit_hash": None,
        "architectures": ["InternVLChatModel"],
        "auto_map": {
            "AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
            "AutoModel": "modeling_internvl_chat.InternVLChatModel",
            "AutoModelForCausalLM": "modeling_internvl_chat.InternVLChatModel",
        },
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": 16,
        "llm_config": shared | (internlm2 if text == "internlm2" else qwen2),
        "max_dynamic_patch": 12,
        "min_dynamic_patch": 1,
        "model_type": "internvl_chat",
        "pad2square": False,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "internlm2-chat" if text == "internlm2" else "Hermes-2",
        "torch_dtype": "bfloat16",
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "use_thumbnail": True,
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "attention_dropout": 0.0,
            "drop_path_rate": 0.0,
            "dropout": 0.0,
            "hidden_act": "gelu",
            "hidden_size": 32,
            "image_size": 16,
            "initializer_factor": 1.0,
            "initializer_range": 0.02,
            "intermediate_size": 40,
            "layer_norm_eps": 1e-06,
            "model_type": "intern_vit_6b",
            "num_attention_heads": 4,
            "num_channels": 3,
            "num_hidden_layers": 3,
            "patch_size": 4,
            "torch_dtype": "bfloat16",
            "use_flash_attn": True,
            **VISION[vision],
        },
    }


def tensors(settings: dict, seed: int = 0) -> dict[str, Tensor]:
    """Random weights in float64 under the published names; norms around 1, so that none can be left out unseen."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Tensor] = {}

    def matrix(name: str, *shape: int, bias: bool = False) -> None:
        found[f"{name}.weight"] = torch.randn(*shape, generator=generator, dtype=torch.float64) * 0.15
        if bias:
            found[f"{name}.bias"] = torch.randn(shape[0], generator=generator, dtype=torch.float64) * 0.1

    def norm(name: str, size: int, bias: bool) -> None:
        found[f"{name}.weight"] = 0.5 + torch.rand(size, generator=generator, dtype=torch.float64)
        if bias:
            found[f"{name}.bias"] = torch.randn(size, generator=generator, dtype=torch.float64) * 0.1

    def free(name: str, *shape: int) -> None:
        found[name] = torch.randn(*shape, generator=generator, dtype=torch.float64) * 0.3

    vision, text = settings["vision_config"], settings["llm_config"]
    width, biased = vision["hidden_size"], vision["norm_type"] == "layer_norm"
    free("vision_model.embeddings.class_embedding", 1, 1, width)
    free(
        "vision_model.embeddings.position_embedding", 1, (vision["image_size"] // vision["patch_size"]) ** 2 + 1, width
    )
    patch = vision["patch_size"]
    matrix("vision_model.embeddings.patch_embedding", width, 3, patch, patch, bias=True)
    for i in range(vision["num_hidden_layers"]):
        layer = f"vision_model.encoder.layers.{i}"
        free(f"{layer}.ls1", width)
        free(f"{layer}.ls2", width)
        matrix(f"{layer}.attn.qkv", 3 * width, width, bias=vision["qkv_bias"])
        if vision["qk_normalization"]:
            norm(f"{layer}.attn.q_norm", width, False)
            norm(f"{layer}.attn.k_norm", width, False)
        matrix(f"{layer}.attn.proj", width, width, bias=True)
        matrix(f"{layer}.mlp.fc1", vision["intermediate_size"], width, bias=True)
        matrix(f"{layer}.mlp.fc2", width, vision["intermediate_size"], bias=True)
        norm(f"{layer}.norm1", width, biased)
        norm(f"{layer}.norm2", width, biased)
    hidden, inner = text["hidden_size"], text["intermediate_size"]
    shuffled = width * round(1 / settings["downsample_ratio"]) ** 2
    norm("mlp1.0", shuffled, True)
    matrix("mlp1.1", hidden, shuffled, bias=True)
    matrix("mlp1.3", hidden, hidden, bias=True)
    heads, groups = text["num_attention_heads"], text["num_key_value_heads"]
    head = hidden // heads
    for i in range(text["num_hidden_layers"]):
        layer = f"language_model.model.layers.{i}"
        if text["model_type"] == "internlm2":
            matrix(f"{layer}.attention.wqkv", (heads + 2 * groups) * head, hidden, bias=text["bias"])
            matrix(f"{layer}.attention.wo", hidden, hidden, bias=text["bias"])
            matrix(f"{layer}.feed_forward.w1", inner, hidden)
            matrix(f"{layer}.feed_forward.w2", hidden, inner)
            matrix(f"{layer}.feed_forward.w3", inner, hidden)
            norm(f"{layer}.attention_norm", hidden, False)
            norm(f"{layer}.ffn_norm", hidden, False)
        else:
            for name, rows in {"q": heads * head, "k": groups * head, "v": groups * head}.items():
                matrix(f"{layer}.self_attn.{name}_proj", rows, hidden, bias=True)
            matrix(f"{layer}.self_attn.o_proj", hidden, hidden)
            matrix(f"{layer}.mlp.gate_proj", inner, hidden)
            matrix(f"{layer}.mlp.up_proj", inner, hidden)
            matrix(f"{layer}.mlp.down_proj", hidden, inner)
            norm(f"{layer}.input_layernorm", hidden, False)
            norm(f"{layer}.post_attention_layernorm", hidden, False)
    norm("language_model.model.norm", hidden, False)
    embedding, output = (
        ("tok_embeddings", "output") if text["model_type"] == "internlm2" else ("embed_tokens", "lm_head")
    )
    matrix(f"language_model.model.{embedding}", text["vocab_size"], hidden)
    if not text["tie_word_embeddings"]:
        matrix(f"language_model.{output}", text["vocab_size"], hidden)
    return found


def train_sentencepiece(**settings) -> bytes:
    """A sentencepiece model of InternLM2's kind: BPE, byte fallback, text taken as it is, unused pieces at the end."""
    model = io.BytesIO()
    internlm2 = {
        "byte_fallback": True,
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "normalization_rule_name": "identity",
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 8),
        model_writer=model,
        model_type="bpe",
        vocab_size=520,
        hard_vocab_limit=False,
        minloglevel=2,
        **(internlm2 | settings),
    )
    proto = sentencepiece_schema.ModelProto.FromString(model.getvalue())
    for unused in UNUSED:
        proto.pieces.add(piece=unused, score=0.0, type=4)
    return proto.SerializeToString()


def _write_internlm2_tokenizer(folder: Path, model: bytes | None) -> int:
    model = model or train_sentencepiece()
    (folder / "tokenizer.model").write_bytes(model)
    size = len(sentencepiece_schema.ModelProto.FromString(model).pieces)
    names = ["<unk>", "<s>", "</s>", *CHAT_TOKENS, *IMAGE_TOKENS]
    ids = [0, 1, 2, *range(size - len(CHAT_TOKENS), size + len(IMAGE_TOKENS))]
    _write_tokenizer_config(
        folder,
        dict(zip(names, ids, strict=True)),
        auto_map={"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
        tokenizer_class="InternLM2Tokenizer",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        unk_token="<unk>",
        add_bos_token=True,
        add_eos_token=False,
    )
    return size + len(IMAGE_TOKENS)


def _write_qwen2_tokenizer(folder: Path) -> int:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = Qwen2Tokenizer()._tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(CORPUS * 8, trainer)
    tokenizer.model.save(str(folder))
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *IMAGE_TOKENS]
    size = tokenizer.get_vocab_size()
    _write_tokenizer_config(
        folder,
        {name: size + i for i, name in enumerate(names)},
        tokenizer_class="Qwen2Tokenizer",
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token=None,
        add_prefix_space=False,
        errors="replace",
    )
    return size + len(names)


def _write_tokenizer_config(folder: Path, added: dict[str, int], **settings) -> None:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    settings |= {
        "added_tokens_decoder": {str(i): {"content": name, **flags} for name, i in added.items()},
        "additional_special_tokens": [name for name in added if name not in ("<unk>", "<s>", "</s>", "<|endoftext|>")],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 8192,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
    beyond = {name: i for name, i in added.items() if name not in ("<unk>", "<s>", "</s>")}
    (folder / "added_tokens.json").write_text(json.dumps(beyond, indent=2))


def write(
    folder: Path,
    text: str = "internlm2",
    vision: str = "300m",
    dtype: torch.dtype = torch.float32,
    shards: int = 3,
    sentencepiece_model: bytes | None = None,
    **changes,
) -> tuple[dict, dict[str, Tensor]]:
    """Write a checkpoint directory; ``changes`` overwrite the configuration, tables key by key.

    Returns the configuration and the tensors, in ``dtype``, as written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    is_internlm2 = text == "internlm2"
    size = _write_internlm2_tokenizer(folder, sentencepiece_model) if is_internlm2 else _write_qwen2_tokenizer(folder)
    settings = config(text, vision, size)
    for key, value in changes.items():
        settings[key] = settings[key] | value if isinstance(settings.get(key), dict) else value
    (folder / "config.json").write_text(json.dumps(settings, indent=2))
    (folder / "generation_config.json").write_text(json.dumps({"_from_model_config": True}))
    for module in ("configuration_internvl_chat", "modeling_internvl_chat", "modeling_internlm2", "conversation"):
        (folder / f"{module}.py").write_text(REMOTE)
    (folder / "tokenization_internlm2.py").write_text(REMOTE)
    written = {name: tensor.to(dtype) for name, tensor in tensors(settings).items()}
    save_shards(folder, written, shards)
    return settings, written


def save_shards(folder: Path, written: dict[str, Tensor], shards: int) -> None:
    """``model-00001-of-0000N.safetensors`` ... and their index."""
    names = list(written)
    weight_map = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = {name: written[name] for name in names[i::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": sum(t.nbytes for t in written.values())}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
