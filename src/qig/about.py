"""What every estimator, equalizer and rounder says of itself; ``qig.report.methods`` makes docs/METHODS.md of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class About:
    """One row of the matrix of methods.

    Attributes:
        formula: what is computed, in the notation of docs/METHODS.md.
        cost: forward and backward passes of f per site and micro-batch, unless it says otherwise.
        needs: what must be there besides the model and the exact stream's inputs.
        source: the paper or code that it is from.
    """

    formula: str
    cost: str
    needs: str
    source: str
