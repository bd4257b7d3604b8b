"""Which exports other runtimes take, by the source of the releases that were read; none was run on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qig.export.scheme import container_bits, is_widenable

READ = "vLLM 0.12.0 and 0.33.0, SGLang 0.5.23"
MARLIN_GROUPS = (None, 32, 64, 128)
OVERVIEW = f"""\
on NVIDIA cards, by the source of {READ} (read, not run):
  weights of 4 bits, or symmetric ones of 8, with 16-bit activations   all three (Marlin, groups of 32, 64, 128 or rows)
  weights of 2, 3, 5, 6, 7 bits with 16-bit activations                vLLM 0.33.0 alone (Humming)
  weights of 8 bits, a scale a row, with 8-bit activations             all three
  weights of fewer bits with 8-bit activations                         none that was confirmed
"""


def on_nvidia(quant: Mapping[str, Any], bits: int) -> str:
    """A sentence on kernels for the run's bit setting ``quant`` with weights that are stored in ``bits`` bits each."""
    weights = quant["weights"]
    group = weights["group_size"]
    if quant["activations"] is not None:
        if bits == 8 and group is None:
            return f"{READ} have kernels for 8-bit weights with 8-bit activations."
        if bits == 4:
            return (
                f"Of {READ}, vLLM has a kernel for 4-bit weights with 8-bit activations on Arm CPUs; none for NVIDIA "
                "cards was confirmed."
            )
        scales = "a row" if group is None else f"a group of {group}"
        return f"{READ} have no scheme for {bits}-bit weights, a scale {scales}, with 8-bit activations."
    grid = "symmetric" if weights["symmetric"] else "asymmetric"
    if bits not in (4, 8):
        return (
            f"Of {READ}, the newer vLLM alone takes {grid} {bits}-bit weights (by the Humming kernels); the other two "
            "have kernels for 4 and 8 bits."
        )
    if bits == 8 and not weights["symmetric"]:
        return (
            f"{READ} accept asymmetric 8-bit weights, but their Marlin kernel does not take them; vLLM has another one "
            "for Hopper cards (Machete)."
        )
    if group not in MARLIN_GROUPS:
        return (
            f"{READ} accept {grid} {bits}-bit weights, but their Marlin kernel takes groups of 32, 64 or 128, or whole "
            f"rows; none for groups of {group} was confirmed."
        )
    return f"{READ} have a kernel (Marlin) for {grid} {bits}-bit weights."


def hint(quant: Mapping[str, Any]) -> str | None:
    """One line after an export that few runtimes take, if a wider container would help."""
    if not is_widenable(quant):
        return None
    wide = container_bits(quant)
    return (
        f"note: {on_nvidia(quant, quant['weights']['bits'])} `--widen` stores the same integers in {wide} bits each: "
        f"{on_nvidia(quant, wide)}"
    )
