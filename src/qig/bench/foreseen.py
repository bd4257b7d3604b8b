"""One calibration, foreseen as ``plan=true`` does it and measured: time by stage and peak memory."""

from __future__ import annotations

from qig.bench.work import Work
from qig.planning.plan import MEBI, foresee
from qig.planning.rehearsal import rehearse


def foreseen_and_measured(work: Work) -> tuple[list[dict], str]:
    """Rows ``what``, ``foreseen``, ``measured``, ``unit``, by the clock; and what was measured, in words.

    What is foreseen is extrapolated from a rehearsal on a few micro-batches, as for the whole model.
    """
    config, device = work.config, work.device
    plan = foresee(work.short(), work.batches, work.blocks, config, device)
    found = rehearse(work.opened(), work.batches, config, device)
    rows = [
        {"what": "whole calibration", "foreseen": plan.seconds, "measured": found.seconds, "unit": "s"},
        *({"what": stage, "foreseen": plan.stages[stage] / work.blocks, "measured": seconds, "unit": "s a block"}
          for stage, seconds in found.stages.items()),
        _peak("peak host memory", plan.host_bytes, found.host_bytes),
    ]
    if found.device_bytes is not None:
        rows.append(_peak("peak device memory", plan.device_bytes, found.device_bytes))
    about = (
        f"{config.method}, {config.quant.name}, {work.samples} samples, {work.tokens:,} tokens, {config.model.dtype}, "
        f"activations on {config.memory.activations}. Seconds by the clock."
    )
    return rows, about


def _peak(what: str, foreseen: int, measured: int) -> dict:
    return {"what": what, "foreseen": foreseen / MEBI, "measured": measured / MEBI, "unit": "MiB"}
