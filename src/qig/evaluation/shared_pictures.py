"""Image features of a batch in which several questions are about one picture: each picture is seen once."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence

from .prompts import Conversation, encode, pictures_of, to_model
from .protocols import Protocol

# What a vision tower says besides and a language model does not read, and what is shared of the rest.
_UNUSED, _SHARED = {"last_hidden_state", "hidden_states", "attentions"}, {"pooler_output", "deepstack_features"}


def model_inputs(
    model, processor, texts: Sequence[str], conversations: Sequence[Conversation], protocol: Protocol, *, padding_side
):
    """A batch as the model takes it, on its device; ``texts`` are rendered from the conversations."""
    inputs = to_model(encode(processor, texts, conversations, protocol, padding_side=padding_side), model)
    return see_once(model, processor, inputs, texts, conversations, protocol)


def see_once(model, processor, inputs, texts: Sequence[str], conversations: Sequence[Conversation], protocol: Protocol):
    """``inputs`` with image features in the place of pixels, where pictures recur and the model takes features.

    The vision tower works once for all conversations with the same pictures; what it gives them is what it would have
    given each, up to rounding. Otherwise the inputs are handed on as they are.

    Args:
        inputs: of :func:`~qig.evaluation.prompts.encode`, on the model's device.
        texts: rendered from the conversations, as they were encoded.
    """
    import torch

    shown = [_fingerprint(conversation) for conversation in conversations]
    first = {pictures: index for index, pictures in reversed(list(enumerate(shown))) if pictures}
    seen = sorted(first.values())
    if len(seen) == sum(map(bool, shown)) or not _takes_features(model):
        return inputs
    see = model.base_model.get_image_features
    few = encode(processor, [texts[i] for i in seen], [conversations[i] for i in seen], protocol, padding_side="right")
    few = to_model(few, model)
    arguments = {name: few[name] for name in inspect.signature(see).parameters if name in few}
    with torch.inference_mode():
        found = see(**arguments, return_dict=True)
    if set(found) - _UNUSED - _SHARED:
        return inputs
    tokens = (few["input_ids"] == model.config.image_token_id).sum(1).tolist()

    def given_to_each(features):
        apart = dict(zip((shown[i] for i in seen), _apart(features, tokens), strict=True))
        parts = [part for pictures in shown if pictures for part in apart[pictures]]
        return torch.stack(parts) if isinstance(features, torch.Tensor) else parts

    image = type(found)(pooler_output=given_to_each(found.pooler_output))
    if "deepstack_features" in found:  # Qwen3-VL: more of them for each of some decoder blocks
        image.deepstack_features = [given_to_each(features) for features in found.deepstack_features]
    rest = {name: value for name, value in inputs.items() if not name.startswith("pixel_")}
    return {**rest, "mm_encoder_outputs": {"image": image}}


def _takes_features(model) -> bool:
    gives = hasattr(model.base_model, "get_image_features")
    return gives and "mm_encoder_outputs" in inspect.signature(model.forward).parameters


def _fingerprint(conversation: Conversation) -> tuple:
    """Equal for conversations with the same pictures in the same order; empty without any.

    The pixels of a picture with a palette are places in it, and one of its colours may stand for none.
    """
    return tuple(
        (picture.mode, picture.size, tuple(picture.getpalette() or ()), picture.info.get("transparency"),
         hashlib.sha256(picture.tobytes()).digest())
        for picture in pictures_of(conversation)
    )  # fmt: skip


def _apart(features, tokens: Sequence[int]) -> list[list]:
    """Features of pictures or tiles, each ``[tokens, channels]``, by conversation; ``tokens``: how many each has."""
    parts, groups = list(features), []
    for count in tokens:
        group = []
        while count > 0:
            group.append(parts.pop(0))
            count -= len(group[-1])
        groups.append(group)
    return groups
