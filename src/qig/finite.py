"""NaN and infinities are refused where they arise. Checks only read: no bit of a result depends on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from qig.errors import NonFiniteError


def is_finite(x: Tensor) -> bool:
    """Whether no value is NaN or infinite: one reduction and one synchronisation, no copy of ``x``."""
    if not x.numel():
        return True
    low, high = x.detach().aminmax()  # NaN passes through
    return bool(low * 0 == high * 0)  # NaN * 0 and inf * 0 are NaN, which equals nothing


def refuse_non_finite(
    what: str, x: Tensor, samples: Sequence[str] | None = None, real: Tensor | None = None
) -> None:
    """Raise if a value is NaN or infinite.

    Args:
        what: the quantity, for the message.
        x: any shape; ``[batch, ...]`` where ``samples`` are given, ``[batch, tokens, ...]`` where ``real`` is.
        samples: ids, one a row of ``x``; the first row with such a value is named.
        real: boolean ``[batch, tokens]``; what stands at padding (False) is nobody's business.

    Raises:
        NonFiniteError: with what was found, and the sample; the caller's ``located`` adds block and site.
    """
    if is_finite(x):
        return
    bad = ~torch.isfinite(x.detach())
    if real is not None:
        bad &= real.to(bad.device).view(*real.shape, *[1] * (x.dim() - real.dim()))
    if not bool(bad.any()):
        return
    sample = None
    if samples is not None:
        row = int(bad.flatten(1).any(1).nonzero()[0])
        sample, x, bad = samples[row], x[row], bad[row]
    raise NonFiniteError(what, counted(x, bad), sample=sample)


def counted(x: Tensor, bad: Tensor) -> str:
    """``3 NaN and 1 infinite of 1,024 values``; ``bad`` marks what is neither finite nor padding."""
    nan = int((torch.isnan(x) & bad).sum())
    return f"{nan:,} NaN and {int(bad.sum()) - nan:,} infinite of {x.numel():,} values"


@contextmanager
def located(block: int | None = None, site: str | None = None) -> Iterator[None]:
    """A NonFiniteError that is raised within gets this place, unless it has one."""
    try:
        yield
    except NonFiniteError as error:
        raise error.at(block, site) from error
