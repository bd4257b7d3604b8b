"""A checkpoint's tensors under the model's own names, brought into modules on the meta device when they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from accelerate.utils import set_module_tensor_to_device
from torch import Tensor, nn

from qig.errors import ModelError
from qig.finite import is_finite


def fill(module: nn.Module, prefix: str, tensors: Mapping[str, Tensor], device: torch.device, skip: str = "\0") -> None:
    """Give every parameter of ``module`` its value, and every buffer its place, on the device.

    Args:
        prefix: the module's dotted name within the model, with a dot at its end (or empty).
        tensors: by name within the model; buffers that are not among them keep their value.
        skip: beginning of names within the model that stay as they are.

    Raises:
        ModelError: a value is not finite, or not of the parameter's shape; names the parameter.
    """
    for name, old in [*module.named_parameters(), *module.named_buffers()]:
        full = prefix + name
        if full.startswith(skip):
            continue
        value = tensors[full] if isinstance(old, nn.Parameter) or full in tensors else old
        if value.shape != old.shape:
            raise ModelError(f"weight {full} has shape {tuple(value.shape)}, config.json asks for {tuple(old.shape)}")
        refuse_non_finite(full, value)
        set_module_tensor_to_device(module, name, device, value=value, clear_cache=False)


def empty(module: nn.Module, skip: str) -> None:
    """Send every parameter of the model back to the meta device, but for names that begin with ``skip``."""
    for name, parameter in list(module.named_parameters()):
        if not name.startswith(skip):
            set_module_tensor_to_device(module, name, "meta", value=parameter, clear_cache=False)


@contextmanager
def filled(
    model: nn.Module, tensors: Mapping[str, Tensor], device: torch.device, skip: str
) -> Iterator[None]:
    """Within the context everything but the ``skip`` part of the model is on the device."""
    fill(model, "", tensors, device, skip)
    model.tie_weights()
    try:
        yield
    finally:
        empty(model, skip)
        model.tie_weights()


def refuse_non_finite(name: str, value: Tensor) -> None:
    """Raises ModelError if a tensor holds a NaN or an infinity."""
    if value.is_floating_point() and not is_finite(value):
        bad = int((~torch.isfinite(value)).sum())
        raise ModelError(f"weight {name} {tuple(value.shape)} holds {bad} non-finite values")
