"""The quantized stage's folder read back: applied to a model, loaded as a checkpoint, measured in bytes."""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf.errors import OmegaConfBaseException

from qig.blockwise.artefact import apply_block, block_folder, read_record
from qig.config.recorded import typed
from qig.config.schema import Model, Quant
from qig.errors import ModelError
from qig.models.checkpoint import EMBEDDED, content_hash, own_dtype, resolve
from qig.models.files import read_json
from qig.models.loading import LoadedModel, load
from qig.quantization.grid import packed_bytes
from qig.quantization.setting import Setting
from qig.store.files import sha256

RECORD = "quantization.json"


def apply_quantized(loaded: LoadedModel, quant: Quant, folder: Path) -> None:
    """Turn a freshly loaded model in place into the quantized model that the folder holds."""
    setting = Setting.of(quant)
    for index, block in enumerate(loaded.blocks):
        apply_block(block_folder(folder, index), block, setting)


def load_quantized(model: Model, quant: Quant | None, folder: Path | None, device: torch.device) -> LoadedModel:
    """The quantized model that the folder holds, or, where there is none, the 16-bit one."""
    loaded = load(model, device)
    if folder is not None:
        apply_quantized(loaded, quant, folder)
    return loaded


def load_checkpoint(path: str | Path, device: torch.device) -> LoadedModel:
    """A model from a run's record folder, from a quantized stage's folder, or from any Hugging Face checkpoint.

    Raises:
        ModelError: none of them, incomplete, damaged, or made from another checkpoint than its path now holds.
    """
    folder = Path(path)
    if (folder / "record.json").is_file():
        stages = read_json(folder / "record.json").get("stages")
        stage = stages.get("quantized", "") if isinstance(stages, dict) else ""
        if stage is None:
            raise ModelError(f"run {folder.name} is a 16-bit run: load its checkpoint instead of the run")
        if not isinstance(stage, str) or not stage.isalnum():
            raise ModelError(f"{folder / 'record.json'} does not name its quantized stage: got {stage!r}")
        folder = folder.absolute().parents[1] / "quantized" / stage
    if not (folder / RECORD).is_file():
        dtype = "float32" if str(path).startswith(EMBEDDED) else own_dtype(resolve(str(path)))
        plain = {"name": str(path), "path": str(path), "dtype": dtype, "outliers": {"sigma": 0.0, "seed": 0}}
        return load(_typed(Model, plain, folder), device)
    record = read_json(folder / RECORD)
    absent = {"model", "quant", "checkpoint_sha256"} - record.keys()
    if absent:
        raise ModelError(f"{folder / RECORD} does not describe a quantized model: it lacks {', '.join(sorted(absent))}")
    model = _typed(Model, record["model"], folder)
    if content_hash(resolve(model.path)) != record["checkpoint_sha256"]:
        raise ModelError(f"{folder} was made from another checkpoint than the one now at {model.path}")
    loaded = load(model, device)
    for index in range(len(loaded.blocks)):
        block = block_folder(folder, index)
        if read_record(block) is None:
            raise ModelError(f"{block} is absent or damaged; run the same command again to make the model anew")
    apply_quantized(loaded, _typed(Quant, record["quant"], folder), folder)
    return loaded


def content_of(path: str | Path) -> str:
    """Hash of what :func:`load_checkpoint` would load: of a record or a stage's own, or of a checkpoint's content."""
    for name in ("record.json", RECORD):
        if (Path(path) / name).is_file():
            return sha256(Path(path) / name)
    return content_hash(resolve(str(path)))


def model_bytes(loaded: LoadedModel, setting: Setting | None) -> dict[str, int]:
    """Size of the weights with 16 bits each, and with the selected linears packed; tied weights count once.

    Only the shapes matter: the model may be opened without its weights, but must not be quantized yet.
    """
    sixteen = 2 * sum(parameter.numel() for parameter in loaded.model.parameters())
    quantized = sixteen
    if setting is not None:
        linears = [linear for block in loaded.blocks for linear in setting.selected(block).values()]
        shapes = [(linear.out_features, linear.in_features) for linear in linears]
        quantized += sum(packed_bytes(shape, setting.weights) - 2 * shape[0] * shape[1] for shape in shapes)
    return {"sixteen_bit": sixteen, "quantized": quantized}


def _typed(schema: type, values: dict, folder: Path):
    try:
        return typed(schema, values)
    except OmegaConfBaseException as error:
        raise ModelError(f"{folder / RECORD} does not describe a quantized model: {error}") from error
