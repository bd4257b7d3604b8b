"""Which part of which published tensor becomes which native tensor.

InternLM2 packs queries, keys and values by key-value group: the group's query heads, one key head, one value head.
InternViT packs them by thirds. Its layer scales ``ls1`` and ``ls2`` are the native ``lambda_1`` and ``lambda_2``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from qig.errors import ModelError
from qig.models.internvl2.original import Original

Take = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Source:
    """A native tensor is ``take`` of the published tensor ``name``."""

    name: str
    take: Take

    def part_of(self, published: Tensor) -> Tensor:
        """A copy, so that a part does not keep the fused tensor that it was cut from."""
        return self.take(published).clone()


OUTPUT = {True: "language_model.output.weight", False: "language_model.lm_head.weight"}  # by Original.is_internlm2

# Names on disk are those that transformers writes for InternVLForConditionalGeneration.
_VISION = {
    r"vision_model\.embeddings\.class_embedding": "vision_tower.embeddings.cls_token",
    r"vision_model\.embeddings\.position_embedding": "vision_tower.embeddings.position_embeddings",
    r"vision_model\.embeddings\.patch_embedding\.": "vision_tower.embeddings.patch_embeddings.projection.",
    r"vision_model\.encoder\.layers\.(\d+)\.norm1\.": r"vision_tower.encoder.layer.\1.layernorm_before.",
    r"vision_model\.encoder\.layers\.(\d+)\.norm2\.": r"vision_tower.encoder.layer.\1.layernorm_after.",
    r"vision_model\.encoder\.layers\.(\d+)\.ls([12])$": r"vision_tower.encoder.layer.\1.lambda_\2",
    r"vision_model\.encoder\.layers\.(\d+)\.attn\.proj\.": r"vision_tower.encoder.layer.\1.attention.projection_layer.",
    r"vision_model\.encoder\.layers\.(\d+)\.attn\.([qk])_norm\.": r"vision_tower.encoder.layer.\1.attention.\2_norm.",
    r"vision_model\.encoder\.layers\.(\d+)\.mlp\.": r"vision_tower.encoder.layer.\1.mlp.",
    r"mlp1\.0\.": "multi_modal_projector.layer_norm.",
    r"mlp1\.1\.": "multi_modal_projector.linear_1.",
    r"mlp1\.3\.": "multi_modal_projector.linear_2.",
}
_INTERNLM2 = {
    r"language_model\.model\.tok_embeddings\.": "language_model.model.embed_tokens.",
    r"language_model\.model\.norm\.": "language_model.model.norm.",
    r"language_model\.output\.": "language_model.lm_head.",
    r"language_model\.model\.layers\.(\d+)\.attention_norm\.": r"language_model.model.layers.\1.input_layernorm.",
    r"language_model\.model\.layers\.(\d+)\.ffn_norm\.": r"language_model.model.layers.\1.post_attention_layernorm.",
    r"language_model\.model\.layers\.(\d+)\.attention\.wo\.": r"language_model.model.layers.\1.self_attn.o_proj.",
    r"language_model\.model\.layers\.(\d+)\.feed_forward\.w1\.": r"language_model.model.layers.\1.mlp.gate_proj.",
    r"language_model\.model\.layers\.(\d+)\.feed_forward\.w2\.": r"language_model.model.layers.\1.mlp.down_proj.",
    r"language_model\.model\.layers\.(\d+)\.feed_forward\.w3\.": r"language_model.model.layers.\1.mlp.up_proj.",
}
_QWEN2 = {r"language_model\.": "language_model."}

_FUSED_VISION = re.compile(r"vision_model\.encoder\.layers\.(\d+)\.attn\.qkv\.(weight|bias)")
_FUSED_TEXT = re.compile(r"language_model\.model\.layers\.(\d+)\.attention\.wqkv\.(weight|bias)")


def sources(original: Original, names: Iterable[str]) -> dict[str, Source]:
    """The source of each native tensor, in the order of the published names.

    Raises:
        ModelError: a published name that is not InternVL2's; names the first few.
    """
    table = _VISION | (_INTERNLM2 if original.is_internlm2 else _QWEN2)
    found: dict[str, Source] = {}
    unknown = []
    for name in names:
        if vision := _FUSED_VISION.fullmatch(name):
            layer, kind = vision.groups()
            for i, letter in enumerate("qkv"):
                native = f"vision_tower.encoder.layer.{layer}.attention.{letter}_proj.{kind}"
                found[native] = Source(name, _third(i))
        elif original.is_internlm2 and (text := _FUSED_TEXT.fullmatch(name)):
            layer, kind = text.groups()
            for letter, take in _heads(original).items():
                found[f"language_model.model.layers.{layer}.self_attn.{letter}_proj.{kind}"] = Source(name, take)
        elif native := _renamed(name, table):
            found[native] = Source(name, lambda tensor: tensor)
        else:
            unknown.append(name)
    if unknown:
        listed = ", ".join(unknown[:3])
        raise ModelError(f"{len(unknown)} tensors are not of InternVL2 with a {original.text_class}: {listed}")
    return found


def _renamed(name: str, table: dict[str, str]) -> str | None:
    for pattern, replacement in table.items():
        if match := re.match(pattern, name):
            return match.expand(replacement) + name[match.end() :]
    return None


def _third(index: int) -> Take:
    return lambda fused: fused.unflatten(0, (3, -1))[index]


def _heads(original: Original) -> dict[str, Take]:
    text = original.text
    groups, queries = text["num_key_value_heads"], text["num_attention_heads"] // text["num_key_value_heads"]
    size = text["hidden_size"] // text["num_attention_heads"]

    def take(part: int | slice) -> Take:
        # [groups, query heads + key + value, head size, ...]
        return lambda packed: packed.unflatten(0, (groups, queries + 2, size))[:, part].reshape(-1, *packed.shape[1:])

    return {"q": take(slice(queries)), "k": take(queries), "v": take(queries + 1)}
