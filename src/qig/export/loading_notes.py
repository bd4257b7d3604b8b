"""What a model card says of loading: how, what was run, and where a runtime departs from what was evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qig.export.runtimes import on_nvidia

TRANSFORMERS = """\
```python
# pip install "transformers>=5.20" "compressed-tensors>=0.17"
from transformers import {model_class}, {inputs_class}

model = {model_class}.from_pretrained("{name}")
{inputs} = {inputs_class}.from_pretrained("{name}")
```"""
LMMS_EVAL = """\
```sh
python -m lmms_eval --model qig --model_args checkpoint={name} --tasks TASK
```"""
WEIGHT_ONLY = (
    "Weights are unpacked while they are loaded, and are then bit by bit those that were evaluated: what is saved is "
    "disk, not memory."
)
ACTIVATIONS = (
    "Weights are unpacked at the first forward pass: what is saved is disk, not memory. Activations are quantized by "
    "whoever runs the model, and the format cannot say how their scale is found. "
)
SCALES = {
    "largest": (
        "The model was evaluated with max|x| / 127 per token; compressed-tensors, in transformers, divides by 127.5. "
        "Integers and scales of the weights are those that were evaluated; logits differ as the rounding of "
        "activations does. (A run with `quant.activations.scale=range` is evaluated as compressed-tensors computes.)"
    ),
    "range": "The model was evaluated with max|x| / 127.5 per token, as compressed-tensors, in transformers, has it.",
}
HALF_PRECISION = (
    "The files keep scales in float32, as they were evaluated; transformers casts them to {dtype} while it loads "
    'them, which moves each weight by about one rounding of that type. With `dtype="float32"` they stay as they are.'
)


RUNTIME_SCALES = (
    "vLLM's packed weights have their scales in the model's data type: each weight moves by about one rounding of it."
)
RUNTIME_ACTIVATIONS = {
    "largest": "Their int8 kernels divide activations by max|x| / 127 per token, as the model was evaluated.",
    "range": "Their int8 kernels divide activations by max|x| / 127 per token; the model was evaluated with 127.5.",
}


def loading(quant: Mapping[str, Any], dtype: str, name: str, text_only: bool, bits: int) -> str:
    """Markdown on transformers, vLLM and lmms-eval for a bit setting and the data type that was computed in.

    ``bits`` is what a weight's container has, at least the bits of the setting.
    """
    classes = (
        {"model_class": "AutoModelForCausalLM", "inputs_class": "AutoTokenizer", "inputs": "tokenizer"}
        if text_only
        else {"model_class": "AutoModelForImageTextToText", "inputs_class": "AutoProcessor", "inputs": "processor"}
    )
    parts = [
        "**transformers**, on CPU: run, in the framework's tests, on its embedded models of three architectures.",
        TRANSFORMERS.format(name=name, **classes),
    ]
    if quant["activations"] is None:
        parts.append(WEIGHT_ONLY)
    else:
        parts.append(ACTIVATIONS + SCALES[quant["activations"]["scale"]])
        if dtype != "float32":
            parts.append(HALF_PRECISION.format(dtype=dtype))
    runtime = RUNTIME_SCALES if quant["activations"] is None else RUNTIME_ACTIVATIONS[quant["activations"]["scale"]]
    parts += [
        f"**vLLM**: not run, and nothing on a GPU. By the source, as it was read: {on_nvidia(quant, bits)} {runtime}",
    ]
    if text_only:
        return "\n\n".join(parts)
    parts += [
        "**lmms-eval**, with the `qig` package installed: run, in the same tests.",
        LMMS_EVAL.format(name=name),
    ]
    return "\n\n".join(parts)
