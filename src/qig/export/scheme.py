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


def scheme_of(quant: Mapping[str, Any]) -> QuantizationScheme:
    """The scheme for ``config.quant`` of a run record.

    Raises:
        ConfigError: compressed-tensors has no format for the combination that a runtime reads; lists those it has.
    """
    weights, activations = quant["weights"], quant["activations"]
    if activations is not None and (activations["bits"] != 8 or not weights["symmetric"]):
        grid = "symmetric" if weights["symmetric"] else "asymmetric"
        raise ConfigError(
            f"quant={quant['name']} ({grid} {weights['bits']}-bit weights, {activations['bits']}-bit activations) "
            f"cannot be exported; what can: {SUPPORTED}"
        )
    from compressed_tensors.config import CompressionFormat
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme, QuantizationStrategy

    group = weights["group_size"]
    strategy = QuantizationStrategy.CHANNEL if group is None else QuantizationStrategy.GROUP
    return QuantizationScheme(
        targets=["Linear"],
        weights=QuantizationArgs(
            num_bits=weights["bits"], symmetric=weights["symmetric"], group_size=group, strategy=strategy
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
