"""The native configuration of a published one."""

from __future__ import annotations

from huggingface_hub.errors import StrictDataclassError
from transformers import GenerationConfig, InternVLConfig, PreTrainedTokenizerBase

from qig.errors import ModelError
from qig.models.internvl2.original import Original, Section

_SHARED = (  # under the same name in the published and in the native text configuration
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "bos_token_id",
    "eos_token_id",
)


def native_config(original: Original, image_token_id: int, tied: bool) -> InternVLConfig:
    """The native configuration; ``tied`` says that the checkpoint holds no output layer of its own.

    Raises:
        ModelError: a value that the native configuration classes refuse.
    """
    try:
        return InternVLConfig(
            architectures=["InternVLForConditionalGeneration"],
            dtype=original.top.get("torch_dtype", original.text.get("torch_dtype")),
            text_config=_text(original, tied),
            vision_config=_vision(original),
            image_token_id=image_token_id,
            image_seq_length=original.tokens_per_tile,
            downsample_ratio=original.top["downsample_ratio"],
            vision_feature_layer=original.top.get("select_layer", -1),
            tie_word_embeddings=tied,
        )
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise ModelError(f"{original.top.name} has a value that transformers refuses: {error}") from error


def _text(original: Original, tied: bool) -> dict:
    text = original.text
    own = {"model_type": "llama", "attention_bias": text["bias"]} if original.is_internlm2 else {"model_type": "qwen2"}
    return {
        **{key: text[key] for key in _SHARED},
        **own,
        "pad_token_id": text.get("pad_token_id"),
        "rope_parameters": _rope(text["rope_theta"], original.rope_scaling),
        "tie_word_embeddings": tied,
    }


def _rope(theta: float, scaling: Section | None) -> dict:
    if scaling is None:
        return {"rope_type": "default", "rope_theta": float(theta)}
    kind = scaling.get("rope_type", scaling.get("type"))
    return {"rope_type": kind, "rope_theta": float(theta), "factor": float(scaling["factor"])}


def _vision(original: Original) -> dict:
    vision = original.vision
    return {
        "hidden_size": vision["hidden_size"],
        "intermediate_size": vision["intermediate_size"],
        "num_hidden_layers": vision["num_hidden_layers"],
        "num_attention_heads": vision["num_attention_heads"],
        "hidden_act": vision["hidden_act"],
        "attention_bias": vision["qkv_bias"],
        "use_qk_norm": vision["qk_normalization"],
        "norm_type": vision.get("norm_type", "rms_norm"),
        "layer_norm_eps": vision["layer_norm_eps"],
        "image_size": vision["image_size"],
        "patch_size": vision["patch_size"],
        "initializer_range": vision.get("initializer_range", 0.02),
    }


def generation_config(tokenizer: PreTrainedTokenizerBase, stop: str) -> GenerationConfig:
    """Greedy generation that ends with the turn (the published chat function does so) or the text."""
    vocabulary = tokenizer.get_vocab()
    stops = [vocabulary[token] for token in (stop, tokenizer.eos_token, "</s>") if token in vocabulary]
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=sorted(set(stops)),
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
