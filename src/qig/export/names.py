"""What a checkpoint calls its decoder blocks, and which of a model's linears stay as they are."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from safetensors import safe_open

from qig.errors import ModelError
from qig.models import checkpoint
from qig.models.architectures import architecture_of

PARTS = (".integers", ".scale", ".zero_point")
"""What the quantized stage keeps of a linear in the place of its weight."""
COMPUTED = "rotary_emb.inv_freq"
"""What older checkpoints keep of a block and no class of transformers loads: it computes it."""


def stage_blocks(stage: Path) -> list[Path]:
    """The files of the blocks, in order."""
    return sorted(stage.glob("blocks/*/weights.safetensors"))


def linears_of(keys: Collection[str]) -> list[str]:
    """The quantized linears among the tensor names of a block's file."""
    return sorted(key.removesuffix(PARTS[0]) for key in keys if key.endswith(PARTS[0]))


def parameters_of(keys: Collection[str]) -> set[str]:
    """The names that the tensors of a block's file stand for in a checkpoint."""
    rest = {key for key in keys if not key.endswith(PARTS)}
    return rest | {f"{linear}.weight" for linear in linears_of(keys)}


def block_prefix(checkpoint_names: Collection[str], blocks: list[Path]) -> str:
    """The name before ``layers.N.`` under which the checkpoint keeps exactly the blocks of the stage.

    A vision tower that calls its linears alike has other parameters beside them.

    Raises:
        ModelError: there is no such name, or several.
    """
    held: dict[str, dict[int, set[str]]] = {}
    for name in checkpoint_names:
        match = re.fullmatch(r"(.*?)layers\.(\d+)\.(.+)", name)
        if match and not match[3].endswith(COMPUTED):
            held.setdefault(match[1], {}).setdefault(int(match[2]), set()).add(match[3])
    wanted = {index: parameters_of(_keys(file)) for index, file in enumerate(blocks)}
    fitting = [prefix for prefix, parameters in held.items() if parameters == wanted]
    if len(fitting) != 1:
        got = ", ".join(sorted(fitting or held)) or "none"
        raise ModelError(
            f"expected one group of {len(blocks)} decoder blocks in the checkpoint with the parameters of the run's "
            f"blocks; those with layers: {got}"
        )
    return fitting[0]


def untouched_linears(directory: Path, blocks: list[Path], checkpoint_names: Collection[str]) -> list[str]:
    """Every linear of the model that the run does not quantize, for ``ignore``.

    By the name of its module, and by that of its tensor in the checkpoint where the two differ: transformers matches
    the first, others the second.
    """
    import torch
    from transformers import AutoConfig
    from transformers.core_model_loading import revert_weight_conversion

    from qig.models.classes import FROM_FILES, model_class

    architecture = architecture_of(checkpoint.model_type(directory))
    with torch.device("meta"):
        model = model_class(architecture).from_config(AutoConfig.from_pretrained(directory, **FROM_FILES))
    text = architecture.text_model
    quantized = {
        f"{text}.layers.{index}.{linear}" for index, file in enumerate(blocks) for linear in linears_of(_keys(file))
    }
    rest: Mapping[str, torch.Tensor] = {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name not in quantized
    }
    stored = {name for name in revert_weight_conversion(model, dict(rest)) if name in checkpoint_names}
    return sorted(name.removesuffix(".weight") for name in {*rest, *stored})


def _keys(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as tensors:
        return list(tensors.keys())
