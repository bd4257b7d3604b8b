"""One model over several accelerators, where none holds it alone: accelerate's hooks, decoder blocks whole."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from qig.errors import ModelError

if TYPE_CHECKING:
    import torch

    from qig.models.loading import LoadedModel


def accelerators(kind: str) -> list[torch.device]:
    """All devices of this kind, such as ``cuda``, that can be seen."""
    import torch

    return [torch.device(kind, index) for index in range(torch.accelerator.device_count())]


def placed(load: Callable[[torch.device], LoadedModel], device: torch.device, sharded: bool) -> LoadedModel:
    """What ``load`` loads on the device, or, where it is to be ``sharded``, in host memory and is then spread."""
    import torch

    if not sharded:
        return load(device)
    loaded = load(torch.device("cpu"))
    spread(loaded)
    return loaded


def spread(loaded: LoadedModel) -> None:
    """Move a model from host memory onto all accelerators that can be seen; it goes on computing what it did.

    Each gets consecutive modules, all about the same size; the first takes the inputs and returns the outputs. Of a
    quantized model: call this when its layers are quantized, since hooks stay with the layers that there are.

    Raises:
        ModelError: all of them together are too small.
    """
    from accelerate import dispatch_model, infer_auto_device_map
    from accelerate.utils import get_balanced_memory, set_module_tensor_to_device

    model = loaded.model
    whole = sorted({type(block).__name__ for block in loaded.blocks}.union(model._no_split_modules or ()))
    memory = get_balanced_memory(model, no_split_module_classes=whole)
    places = infer_auto_device_map(model, max_memory=memory, no_split_module_classes=whole)
    left = [name for name, place in places.items() if not isinstance(place, int)]
    if left:
        there = ", ".join(f"{size / 2**30:.1f} GiB" for place, size in memory.items() if isinstance(place, int))
        raise ModelError(
            f"evaluation.sharded: the accelerators that can be seen ({there or 'none'} free) do not hold the model; "
            f"no room for {', '.join(left[:3])}{' and others' if len(left) > 3 else ''}"
        )
    # A parameter beside modules (LLaVA's image_newline) is left where it was by what follows.
    for name in places.keys() - dict(model.named_modules()).keys():
        set_module_tensor_to_device(model, name, places[name])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The following device_map keys do not match any submodules")
        dispatch_model(model, places)
