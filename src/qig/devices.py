"""The device that does the work: which one is meant, whether it is there, and whether its memory does."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from qig.accelerator import idle_card, ruled_out
from qig.errors import ConfigError, QigError, choices

if TYPE_CHECKING:
    import torch

    from qig.config.schema import Evaluation

log = logging.getLogger(__name__)

KINDS = ("auto", "cpu", "cuda", "hpu", "mps", "mtia", "npu", "xpu")


def check_evaluation(evaluation: Evaluation, device: str) -> None:
    """Several processes take an accelerator each, and share a processor's cores; a sharded model takes all that are.

    Raises:
        ConfigError: there are fewer accelerators than processes, or a model is to be spread over a single device.
    """
    processes = evaluation.processes
    if evaluation.sharded and (device == "cpu" or ":" in device):
        raise ConfigError(f"evaluation.sharded=true spreads a model over all accelerators; got device={device}")
    if device == "cpu" or processes == 1:
        return
    import torch

    count = torch.accelerator.device_count()
    if processes > count:
        raise ConfigError(f"evaluation.processes={processes}: each takes a device of its own, and {count} can be seen")


def device_name(configured: str) -> str:
    """The device that the configuration means; ``auto`` is the first accelerator that will do, else ``cpu``.

    It has to have float64, in which errors, moments and integrals are added: Apple's (``mps``) does not.

    Raises:
        ConfigError: torch does not know the device, it is not there, or has no float64.
    """
    if configured == "cpu":
        return "cpu"
    if configured == "auto" and ruled_out():
        return _processor()  # a run that the store answers then starts without torch

    import torch

    found = configured
    if configured == "auto":
        found = torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"
    try:
        torch.empty(0, dtype=torch.float64, device=found)
    except (RuntimeError, AssertionError, TypeError) as error:  # the last: no float64
        if configured == "auto":
            return _processor()
        kind = configured.partition(":")[0]
        if kind not in KINDS:
            raise ConfigError(choices(configured, KINDS, "device")) from error
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device={configured!r} cannot be used ({reason}); choose auto, cpu, or one that is there"
        ) from error
    return _processor() if configured == "auto" and found == "cpu" else found


def _processor() -> str:
    """What ``device=auto`` ends in for want of better; told where a graphics card is there that torch cannot use."""
    card = idle_card()
    if card is not None:
        log.warning(
            "device=auto: the processor does the work. %s: is its build for CUDA, the driver new enough, and "
            "was the job given a card? (python -c 'import torch; torch.cuda.init()' says why; device=cpu: no warning)",
            card,
        )
    return "cpu"


@contextmanager
def enough_memory(device: torch.device, remedies: str) -> Iterator[None]:
    """Raises QigError, with remedies, where the device's memory is too small."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise QigError(f"the memory of {device} does not do: {str(error).splitlines()[0]} {remedies}") from error
