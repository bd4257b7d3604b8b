"""The table of families, and the directory of a checkpoint made from a row: true structure, random weights.

Weights are stored as the hub has them: bfloat16, under the published names, in two files with an index.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

from families.family import Family
from families.internvl import INTERNVL3
from families.language import LLAMA, MISTRAL, QWEN2, QWEN3
from families.llava import LLAVA_ONEVISION
from families.qwen2 import QWEN2_5_VL, QWEN2_VL
from families.qwen3 import QWEN3_VL
from families.smolvlm import SMOLVLM, SMOLVLM2
from families.tokenizer import trained_tokenizer, vocabulary_of
from qig.models.architectures import architecture_of
from qig.models.classes import model_class

FAMILIES = {
    "llava_onevision": LLAVA_ONEVISION,
    "qwen2_vl": QWEN2_VL,
    "qwen2_5_vl": QWEN2_5_VL,
    "qwen3_vl": QWEN3_VL,
    "internvl3": INTERNVL3,
    "smolvlm": SMOLVLM2,
    "idefics3": SMOLVLM,
}
LANGUAGE = {"llama": LLAMA, "mistral": MISTRAL, "qwen2": QWEN2, "qwen3": QWEN3}
"""Text only: by ``model_type``."""


def write_checkpoint(family: Family, folder: Path, seed: int = 0, **changes: Any) -> None:
    """Fill ``folder`` with the family's files; ``changes`` replace values of ``config``."""
    tokenizer = trained_tokenizer(family.special_tokens, digits=family.tokenizer["tokenizer_class"] == "GPT2Tokenizer")
    if family.tokenizer.get("bos_token") == "<s>":
        begin = ("<s>", tokenizer.token_to_id("<s>"))
        tokenizer.post_processor = TemplateProcessing("<s> $A", "<s> $A <s> $B", [begin])
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = vocabulary_of(tokenizer, family.special_tokens)
    added = {str(i): {"content": token, "special": True} | _PLAIN for token, i in ids.items()}
    files = {
        "config.json": _with_ids(family.config | changes, ids),
        "tokenizer_config.json": {
            **family.tokenizer,
            "added_tokens_decoder": added,
            "additional_special_tokens": list(family.special_tokens),
        },
        **{
            name: _with_ids(content, ids) if "generation" in name else content for name, content in family.files.items()
        },
    }
    if family.template_file.endswith(".json"):
        files[family.template_file] = {"chat_template": family.template}
    else:
        (folder / family.template_file).write_text(family.template)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = AutoConfig.from_pretrained(folder)
        opened_by = model_class(architecture_of(config.model_type))
        model = opened_by.from_config(config, dtype=torch.bfloat16)
        tensors = published_names(family, randomized(model, family.tied))
    size = sum(value.nbytes for value in tensors.values())
    save_torch_state_dict(tensors, folder, max_shard_size=int(0.6 * size))


_PLAIN = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}


def _with_ids(value: Any, ids: dict[str, int]) -> Any:
    """The JSON value with every text that is a special token replaced by the token's id."""
    if isinstance(value, dict):
        return {name: _with_ids(part, ids) for name, part in value.items()}
    if isinstance(value, list):
        return [_with_ids(part, ids) for part in value]
    return ids.get(value, value) if isinstance(value, str) else value


def published_names(family: Family, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names of the hub; the first pattern that fits a name renames it."""

    def rename(name: str) -> str:
        for pattern, replacement in family.renamed:
            if re.match(pattern, name):
                return re.sub(pattern, replacement, name)
        return name

    return {rename(name): value for name, value in tensors.items()}


def randomized(model: PreTrainedModel, tied: bool) -> dict[str, Tensor]:
    """Random values for every parameter, of sizes at which no part of the model is without effect on the logits."""
    left_out = "lm_head.weight" if tied else None
    return {n: _random(n, p) for n, p in model.named_parameters(remove_duplicate=False) if n != left_out}


def _random(name: str, parameter: Tensor) -> Tensor:
    noise = torch.randn(parameter.shape)
    if name.endswith("bias"):
        value = 0.2 * noise
    elif parameter.dim() == 1 and "newline" not in name:  # norms, layer scales
        value = 0.5 + torch.rand(parameter.shape)
    elif "embed_tokens" in name:
        value = 0.25 * noise  # where it is the head as well, logits would otherwise saturate
    elif any(part in name for part in ("pos_embed", "position_embedding", "newline", "cls_token")):
        value = noise
    else:
        # Queries and keys twice as large: attention is then far from uniform.
        gain = 2.0 if re.search(r"[qk]_proj|qkv", name) else 1.0
        value = gain * noise / parameter[0].numel() ** 0.5
    return value.to(parameter.dtype)
