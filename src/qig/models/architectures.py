"""The architecture table: where each family keeps its decoder blocks, and the equalization sites of a block.

Llama, Qwen2, Qwen3 and the text models of the families below share the names inside a block, so one description of
the sites serves them all. Adding a family is a row here and a YAML in ``conf/model``.
"""

from __future__ import annotations

from dataclasses import dataclass

from qig.errors import ModelError, choices


@dataclass(frozen=True)
class Site:
    """A place of a decoder block where input channels can be rescaled without changing the function.

    Attributes:
        producer: the norm or linear whose output channels absorb 1/s.
        consumers: the linears whose input channels absorb s.
        inspected: the module f whose output error is measured and attributed.
        block_output: the linear whose output carries the loss gradient of this half of the block (MBQ).
    """

    name: str
    producer: str
    consumers: tuple[str, ...]
    inspected: str
    block_output: str

    @property
    def is_linear(self) -> bool:
        """Whether f is a single linear layer (then integrated gradients have a closed form)."""
        return self.consumers == (self.inspected,)

    @property
    def mixes_tokens(self) -> bool:
        """Whether f lets tokens see each other (attention); linears and the MLP treat every token by itself."""
        return self.inspected == ATTENTION


ATTENTION = "self_attn"

LLAMA_SITES = (
    Site(
        "attn_in",
        "input_layernorm",
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        ATTENTION,
        "self_attn.o_proj",
    ),
    Site("attn_out", "self_attn.v_proj", ("self_attn.o_proj",), "self_attn.o_proj", "self_attn.o_proj"),
    Site("mlp_in", "post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj"), "mlp", "mlp.down_proj"),
    Site("mlp_out", "mlp.up_proj", ("mlp.down_proj",), "mlp.down_proj", "mlp.down_proj"),
)


@dataclass(frozen=True)
class Architecture:
    """Attributes:
    text_model: the submodule of the model's class that holds ``layers``.
    published_layers: the name of those layers in the files on the hub.
    image_tokens: names of the config attributes that give the ids of image (and video) placeholder tokens; none for a
        language model, which knows nothing but text.
    attention: the attention module inside a block.
    """

    text_model: str
    published_layers: str
    image_tokens: tuple[str, ...] = ("image_token_id",)
    attention: str = ATTENTION
    sites: tuple[Site, ...] = LLAMA_SITES

    @property
    def text_only(self) -> bool:
        """Whether this is a causal language model: a tokenizer instead of a processor, and no vision tokens."""
        return not self.image_tokens

    @property
    def stored_layers(self) -> tuple[str, ...]:
        """The names that the decoder blocks may have in a checkpoint's files: as published, or as in the class."""
        return self.published_layers, f"{self.text_model}.layers"


_WITH_VIDEO = ("image_token_id", "video_token_id")
_CAUSAL_LM = Architecture("model", "model.layers", image_tokens=())

ARCHITECTURES = {
    "llava_onevision": Architecture("model.language_model", "language_model.model.layers", _WITH_VIDEO),
    "qwen2_vl": Architecture("model.language_model", "model.layers", _WITH_VIDEO),
    "qwen2_5_vl": Architecture("model.language_model", "model.layers", _WITH_VIDEO),
    "qwen3_vl": Architecture("model.language_model", "model.language_model.layers", _WITH_VIDEO),
    "internvl": Architecture("model.language_model", "language_model.model.layers"),
    "smolvlm": Architecture("model.text_model", "model.text_model.layers"),
    "idefics3": Architecture("model.text_model", "model.text_model.layers"),
    "llama": _CAUSAL_LM,
    "mistral": _CAUSAL_LM,
    "qwen2": _CAUSAL_LM,
    "qwen3": _CAUSAL_LM,
}


def architecture_of(model_type: str) -> Architecture:
    """The table's row for a Hugging Face ``config.model_type``.

    Raises:
        ModelError: the family has no row; the message lists those that have.
    """
    if model_type not in ARCHITECTURES:
        raise ModelError(choices(model_type, ARCHITECTURES, "architecture"))
    return ARCHITECTURES[model_type]
