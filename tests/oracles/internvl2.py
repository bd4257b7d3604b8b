"""InternVL2 straight from published tensors, head by head and patch by patch, in float64; one sample, no padding."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _w(tensors: dict[str, Tensor], name: str) -> Tensor:
    return tensors[name].double()


def _linear(tensors: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    y = x @ _w(tensors, f"{name}.weight").T
    return y + _w(tensors, f"{name}.bias") if f"{name}.bias" in tensors else y


def _rms(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return x / ((x * x).mean(-1, keepdim=True) + epsilon) ** 0.5 * weight


def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / ((centred * centred).mean(-1, keepdim=True) + epsilon) ** 0.5 * weight + bias


def _gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def _silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def rope_base(text: dict, tokens: int) -> float:
    """Dynamic scaling raises the base once the sequence is longer than the model was trained for."""
    scaling, most = text.get("rope_scaling"), text["max_position_embeddings"]
    size = text["hidden_size"] // text["num_attention_heads"]
    if scaling is None or tokens <= most:
        return text["rope_theta"]
    factor = scaling["factor"]
    return text["rope_theta"] * (factor * tokens / most - (factor - 1)) ** (size / (size - 2))


def _rotate(x: Tensor, base: float) -> Tensor:
    """``x [tokens, head size]``: channel i and channel i + half are turned by position * base^(-2i/size)."""
    half = x.shape[1] // 2
    result = torch.empty_like(x)
    for position in range(len(x)):
        for i in range(half):
            angle = position * base ** (-2 * i / x.shape[1])
            a, b = x[position, i], x[position, i + half]
            result[position, i] = a * math.cos(angle) - b * math.sin(angle)
            result[position, i + half] = b * math.cos(angle) + a * math.sin(angle)
    return result


def _attend(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    scores = q @ k.T / math.sqrt(q.shape[1])
    if causal:
        scores = scores.masked_fill(torch.ones(len(q), len(q), dtype=torch.bool).triu(1), -math.inf)
    return scores.softmax(-1) @ v


def internlm2_attention(tensors: dict[str, Tensor], text: dict, layer: int, x: Tensor) -> Tensor:
    """``x [tokens, channels]`` through ``attention.wqkv`` and ``attention.wo``.

    Rows of ``wqkv``, key-value group by group: its query heads, its key head, its value head.
    """
    name = f"language_model.model.layers.{layer}.attention"
    heads, groups = text["num_attention_heads"], text["num_key_value_heads"]
    size, per_group = text["hidden_size"] // heads, heads // groups
    packed = _linear(tensors, f"{name}.wqkv", x)
    base = rope_base(text, len(x))
    outputs = []
    for head in range(heads):
        start = (head // per_group) * (per_group + 2) * size
        query = packed[:, start + (head % per_group) * size :][:, :size]
        key = packed[:, start + per_group * size :][:, :size]
        value = packed[:, start + (per_group + 1) * size :][:, :size]
        outputs.append(_attend(_rotate(query, base), _rotate(key, base), value, causal=True))
    return _linear(tensors, f"{name}.wo", torch.cat(outputs, 1))


def internlm2_block(tensors: dict[str, Tensor], text: dict, layer: int, x: Tensor) -> Tensor:
    name, epsilon = f"language_model.model.layers.{layer}", text["rms_norm_eps"]
    x = x + internlm2_attention(tensors, text, layer, _rms(x, _w(tensors, f"{name}.attention_norm.weight"), epsilon))
    y = _rms(x, _w(tensors, f"{name}.ffn_norm.weight"), epsilon)
    inner = _silu(_linear(tensors, f"{name}.feed_forward.w1", y)) * _linear(tensors, f"{name}.feed_forward.w3", y)
    return x + _linear(tensors, f"{name}.feed_forward.w2", inner)


def qwen2_block(tensors: dict[str, Tensor], text: dict, layer: int, x: Tensor) -> Tensor:
    name, epsilon = f"language_model.model.layers.{layer}", text["rms_norm_eps"]
    heads, groups = text["num_attention_heads"], text["num_key_value_heads"]
    size, base = text["hidden_size"] // heads, rope_base(text, len(x))
    y = _rms(x, _w(tensors, f"{name}.input_layernorm.weight"), epsilon)
    q, k, v = (_linear(tensors, f"{name}.self_attn.{letter}_proj", y) for letter in "qkv")
    outputs = []
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        group = head // (heads // groups)
        shared = slice(group * size, (group + 1) * size)
        outputs.append(_attend(_rotate(q[:, own], base), _rotate(k[:, shared], base), v[:, shared], causal=True))
    x = x + _linear(tensors, f"{name}.self_attn.o_proj", torch.cat(outputs, 1))
    y = _rms(x, _w(tensors, f"{name}.post_attention_layernorm.weight"), epsilon)
    inner = _silu(_linear(tensors, f"{name}.mlp.gate_proj", y)) * _linear(tensors, f"{name}.mlp.up_proj", y)
    return x + _linear(tensors, f"{name}.mlp.down_proj", inner)


def vision_states(tensors: dict[str, Tensor], vision: dict, pixels: Tensor) -> list[Tensor]:
    """``pixels [3, height, width]`` -> ``[1 + patches, channels]`` before the first layer and behind each layer."""
    patch, epsilon = vision["patch_size"], vision["layer_norm_eps"]
    kernel = _w(tensors, "vision_model.embeddings.patch_embedding.weight")
    rows = [_w(tensors, "vision_model.embeddings.class_embedding")[0, 0]]
    for i in range(pixels.shape[1] // patch):
        for j in range(pixels.shape[2] // patch):
            cut = pixels[:, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch].double()
            rows.append((kernel * cut).sum((1, 2, 3)) + _w(tensors, "vision_model.embeddings.patch_embedding.bias"))
    x = torch.stack(rows) + _w(tensors, "vision_model.embeddings.position_embedding")[0]
    states = [x]
    width, heads = x.shape[1], vision["num_attention_heads"]
    size = width // heads
    for layer in range(vision["num_hidden_layers"]):
        name = f"vision_model.encoder.layers.{layer}"

        def norm(which: str, x: Tensor, name: str = name) -> Tensor:
            weight = _w(tensors, f"{name}.{which}.weight")
            if vision["norm_type"] == "rms_norm":
                return _rms(x, weight, epsilon)
            return _layer_norm(x, weight, _w(tensors, f"{name}.{which}.bias"), epsilon)

        fused = _linear(tensors, f"{name}.attn.qkv", norm("norm1", x))
        q, k, v = fused[:, :width], fused[:, width : 2 * width], fused[:, 2 * width :]
        if vision["qk_normalization"]:
            q = _rms(q, _w(tensors, f"{name}.attn.q_norm.weight"), epsilon)
            k = _rms(k, _w(tensors, f"{name}.attn.k_norm.weight"), epsilon)
        cuts = [slice(head * size, (head + 1) * size) for head in range(heads)]
        attended = torch.cat([_attend(q[:, cut], k[:, cut], v[:, cut], causal=False) for cut in cuts], 1)
        x = x + _linear(tensors, f"{name}.attn.proj", attended) * _w(tensors, f"{name}.ls1")
        inner = _linear(tensors, f"{name}.mlp.fc2", _gelu(_linear(tensors, f"{name}.mlp.fc1", norm("norm2", x))))
        x = x + inner * _w(tensors, f"{name}.ls2")
        states.append(x)
    return states


def image_features(tensors: dict[str, Tensor], settings: dict, pixels: Tensor) -> Tensor:
    """``pixels [3, height, width]`` of one tile -> ``[tokens, channels of the text model]``.

    Pixel shuffle (v2): a square of patches becomes one token, whose channels are those of the square row by row.
    """
    patches = vision_states(tensors, settings["vision_config"], pixels)[settings["select_layer"]][1:]
    side, step = math.isqrt(len(patches)), round(1 / settings["downsample_ratio"])
    tokens = []
    for i in range(0, side, step):
        for j in range(0, side, step):
            tokens.append(torch.cat([patches[(i + a) * side + j + b] for a in range(step) for b in range(step)]))
    x = torch.stack(tokens)
    x = _layer_norm(x, _w(tensors, "mlp1.0.weight"), _w(tensors, "mlp1.0.bias"), 1e-5)
    return _linear(tensors, "mlp1.3", _gelu(_linear(tensors, "mlp1.1", x)))


def logits(tensors: dict[str, Tensor], settings: dict, ids: list[int], image_id: int, tiles: Tensor | None) -> Tensor:
    """``[tokens, vocabulary]`` for ``ids`` whose image tokens stand for the features of ``tiles [tiles, 3, h, w]``."""
    text = settings["llm_config"]
    internlm2 = text["model_type"] == "internlm2"
    embedding = _w(tensors, f"language_model.model.{'tok_embeddings' if internlm2 else 'embed_tokens'}.weight")
    x = embedding[torch.tensor(ids)].clone()
    if tiles is not None:
        places = [i for i, token in enumerate(ids) if token == image_id]
        features = torch.cat([image_features(tensors, settings, tile) for tile in tiles])
        assert len(places) == len(features)
        x[places] = features
    block = internlm2_block if internlm2 else qwen2_block
    for layer in range(text["num_hidden_layers"]):
        x = block(tensors, text, layer, x)
    x = _rms(x, _w(tensors, "language_model.model.norm.weight"), text["rms_norm_eps"])
    output = f"language_model.{'output' if internlm2 else 'lm_head'}.weight"
    return x @ (_w(tensors, output) if output in tensors else embedding).T


def grid(width: int, height: int, least: int, most: int, tile: int) -> tuple[int, int]:
    """Columns and rows of tiles: the nearest aspect ratio; of equal ones a larger grid only if it covers less than
    twice the image's area. Ratios are looked at by growing number of tiles."""
    ratios = [(i, j) for i in range(1, most + 1) for j in range(1, most + 1) if least <= i * j <= most]
    best = min(abs(width / height - i / j) for i, j in ratios)
    nearest = sorted((ratio for ratio in ratios if abs(width / height - ratio[0] / ratio[1]) == best), key=math.prod)
    chosen = nearest[0]
    for candidate in nearest[1:]:
        if 2 * width * height > tile * tile * math.prod(candidate):
            chosen = candidate
    return chosen


def tile_count(width: int, height: int, least: int, most: int, tile: int) -> int:
    """Tiles of the grid and, if it has more than one, a thumbnail."""
    tiles = math.prod(grid(width, height, least, most, tile))
    return tiles + 1 if tiles > 1 else 1
