"""A bit setting in the words of compressed-tensors: the scheme of the quantized linears and ``quantization_config``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qig.errors import ConfigError

if TYPE_CHECKING:
    from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme

SUPPORTED = (
    "weights of 2 to 8 bits with 16-bit activations (pack-quantized), "
    "and symmetric weights of 2 to 8 bits with 8-bit activations (int-quantized)"
)
WIDENABLE = (
    "weights of 2 and 3 bits (to 4) and of 5 to 7 bits (to 8) with 16-bit activations, "
    "and weights of 2 to 7 bits, a scale a row, with 8-bit activations (to 8)"
)


def container_bits(quant: Mapping[str, Any]) -> int:
    """The narrowest width that kernels are commonly made for and that holds the run's integers."""
    return 4 if quant["activations"] is None and quant["weights"]["bits"] <= 4 else 8


def is_widenable(quant: Mapping[str, Any]) -> bool:
    """Whether a wider container brings the run's integers nearer to a kernel.

    None multiplies 8-bit weights in groups by 8-bit activations, and scales of groups cannot become one of a row.
    """
    weights = quant["weights"]
    grouped = quant["activations"] is not None and weights["group_size"] is not None
    return weights["bits"] != container_bits(quant) and not grouped


def scheme_of(quant: Mapping[str, Any], widen: bool = False) -> QuantizationScheme:
    """The scheme for ``config.quant`` of a run record.

    ``widen`` names the container of ``container_bits`` in the place of the run's bits. Integers, zero points and scales
    stay what they are, and so do the products that a loader makes of them.

    Raises:
        ConfigError: compressed-tensors has no format for the combination that a runtime reads, or there is nothing to
            widen; lists what there is.
    """
    weights, activations = quant["weights"], quant["activations"]
    if activations is not None and (activations["bits"] != 8 or not weights["symmetric"]):
        raise ConfigError(f"{_in_words(quant)} cannot be exported; what can: {SUPPORTED}")
    if widen and not is_widenable(quant):
        raise ConfigError(f"{_in_words(quant)} has nothing that --widen could widen; what has: {WIDENABLE}")
    from compressed_tensors.config import CompressionFormat
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme, QuantizationStrategy

    group = weights["group_size"]
    strategy = QuantizationStrategy.CHANNEL if group is None else QuantizationStrategy.GROUP
    return QuantizationScheme(
        targets=["Linear"],
        weights=QuantizationArgs(
            num_bits=container_bits(quant) if widen else weights["bits"],
            symmetric=weights["symmetric"],
            group_size=group,
            strategy=strategy,
        ),
        input_activations=activations
        and QuantizationArgs(num_bits=8, symmetric=True, strategy=QuantizationStrategy.TOKEN, dynamic=True),
        format=CompressionFormat.int_quantized if activations else CompressionFormat.pack_quantized,
    )


def quantization_config(scheme: QuantizationScheme, ignore: Sequence[str]) -> QuantizationConfig:
    """What ``config.json`` says of the quantization; ``ignore`` names all linears that stay as they are."""
    from compressed_tensors.quantization import QuantizationConfig, QuantizationStatus

    return QuantizationConfig(
        config_groups={"group_0": scheme},
        format=scheme.format,
        quantization_status=QuantizationStatus.COMPRESSED,
        ignore=list(ignore),
    )


def _in_words(quant: Mapping[str, Any]) -> str:
    weights, activations = quant["weights"], quant["activations"]
    grid = "symmetric" if weights["symmetric"] else "asymmetric"
    scales = "a scale a row" if weights["group_size"] is None else f"groups of {weights['group_size']}"
    bits = 16 if activations is None else activations["bits"]
    return f"quant={quant['name']} ({grid} {weights['bits']}-bit weights, {scales}, {bits}-bit activations)"
