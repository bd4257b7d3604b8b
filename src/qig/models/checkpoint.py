"""What can be known of a checkpoint without loading it: where it is, what it contains, its content's identity.

Nothing here imports torch or transformers, so that mistakes are told within a second.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from pathlib import Path

from qig.errors import ConfigError, ModelError
from qig.models.architectures import architecture_of
from qig.models.files import read_json, tensor_shapes
from qig.store.files import sha256

log = logging.getLogger(__name__)
EMBEDDED = "embedded:"
PACKAGED = "packaged:"
DTYPES = ("bfloat16", "float16", "float32")
LARGE = 64 * 2**20  # bytes; hashed faster than a note of it would be found
# Everything that changes what a checkpoint computes; not its README.
CONTENT = (".safetensors", ".json", ".jinja", ".txt", ".model")


def resolve(path: str) -> Path:
    """The directory of ``embedded:NAME``, of ``packaged:NAME``, of a local path, or of a hub id (downloaded once).

    ``owner/name@REVISION`` is that commit, branch or tag of it.

    A directory in InternVL2's published format is answered by its conversion into the native one, made at first use.

    Raises:
        ModelError: no such directory, no ``config.json`` in it, a format that cannot be converted, or the hub is out of
            reach.
    """
    from qig.models import internvl2

    directory = _located(path)
    return _converted(directory) if internvl2.is_original(directory) else directory


def _converted(directory: Path) -> Path:
    """The native form of an InternVL2 directory, kept in the cache under the hash of what made it, and of what."""
    from qig.config.digest import digest
    from qig.config.identity import versions
    from qig.config.sources import code_version
    from qig.models.internvl2 import convert
    from qig.store import Store

    made_by = (code_version(("models/internvl2",)), versions(("transformers", "tokenizers")))
    key = digest([content_hash(directory), *made_by])
    cache = cache_dir()
    if (cache / "converted" / key / "config.json").is_file():  # it was complete when it got its name
        return cache / "converted" / key
    return Store(cache).make("converted", key, lambda folder: convert(directory, folder))[0]


def _located(path: str) -> Path:
    if path.startswith(EMBEDDED):
        from qig.models.tiny import checkpoint_dir

        return checkpoint_dir(path.removeprefix(EMBEDDED))
    if path.startswith(PACKAGED):
        from qig.models import packaged

        return packaged.checkpoint_dir(path.removeprefix(PACKAGED))
    if not path.strip():
        raise ModelError("model.path is empty (a variable that is not set?): expected a directory or a hub id")
    directory = Path(path).expanduser()
    if directory.is_dir():
        if not (directory / "config.json").is_file():
            raise ModelError(f"{directory} holds no config.json: expected a Hugging Face checkpoint directory")
        return directory
    if directory.is_absolute() or path.startswith((".", "~")) or repository(path)[0].count("/") != 1:
        expected = "a hub id has the form owner/name, or owner/name@revision"
        raise ModelError(f"checkpoint directory {path!r} does not exist ({expected})")
    return _from_hub(path)


def repository(path: str) -> tuple[str, str | None]:
    """Of a hub id its ``owner/name``, and the revision that it asks for."""
    name, _, revision = path.partition("@")
    return name, revision or None


def _from_hub(path: str) -> Path:
    from huggingface_hub import constants, snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    from huggingface_hub.utils import disable_progress_bars

    name, revision = repository(path)
    patterns = ["*" + ending for ending in CONTENT]
    again = "consolidated*"  # Mistral's: the same weights, under the names that its own code gives them
    try:
        cached = isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str)
        if cached or constants.HF_HUB_OFFLINE:
            disable_progress_bars()
        else:  # a 7B model is 15 GB
            log.warning("%s is not in the local hub cache (%s): fetching it", path, constants.HF_HUB_CACHE)
        fetched = {"allow_patterns": patterns, "ignore_patterns": again}
        return Path(snapshot_download(name, revision=revision, etag_timeout=5, **fetched))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        download = f"hf download {name}" + (f" --revision {revision}" if revision else "")
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{path!r} is no local directory, is not in the local hub cache, and could not be fetched from the hub "
            f"({reason}); give model.path a directory, or download it first with `{download}`"
        ) from error


def content_hash(directory: Path) -> str:
    """SHA-256 over the names and bytes of the files that decide what the checkpoint computes."""
    digest = hashlib.sha256()
    for name, found in file_hashes(directory).items():
        digest.update(name.encode() + b"\0" + bytes.fromhex(found))
    return digest.hexdigest()


def file_hashes(directory: Path) -> dict[str, str]:
    """Name to SHA-256 of each of these files, sorted."""
    files = sorted(file for file in directory.iterdir() if file.is_file() and file.name.endswith(CONTENT))
    return {file.name: _file_hash(file) for file in files}


def _file_hash(file: Path) -> str:
    """SHA-256 of a file in hexadecimal digits; that of a large one is remembered for as long as the file stays as is.

    Hashing the 145 GB of a 72B model takes minutes, and every run of a sweep asks for it.
    """
    real = file.resolve()
    state = real.stat()
    if state.st_size < LARGE:
        return sha256(real)
    known = f"{real}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ino}"
    memory = cache_dir() / "hashes" / hashlib.sha256(known.encode()).hexdigest()
    try:
        return bytes.fromhex(memory.read_text()).hex()
    except (OSError, ValueError):
        found = sha256(real)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time and nothing else
        memory.parent.mkdir(parents=True, exist_ok=True)
        temporary = memory.with_name(f"{memory.name}.{os.getpid()}")
        temporary.write_text(found)
        temporary.replace(memory)
    return found


def cache_dir() -> Path:
    """Where what can be made again is kept between runs: ``QIG_CACHE``, or ``qig`` in the user's cache folder."""
    configured = os.environ.get("QIG_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return (Path(configured) if configured else Path(base) / "qig").expanduser()


def model_type(directory: Path) -> str:
    """The family that ``config.json`` names.

    Raises:
        ModelError: the file cannot be read or names none.
    """
    found = read_json(directory / "config.json").get("model_type")
    if not isinstance(found, str):
        raise ModelError(f"{directory / 'config.json'} does not say the model_type: got {found!r}")
    return found


def own_dtype(directory: Path) -> str:
    """The floating-point type that ``config.json`` gives its weights, such as ``bfloat16``.

    Raises:
        ConfigError: it says none that can be computed with.
    """
    config = read_json(directory / "config.json")
    for part in (config, config.get("text_config")):
        found = (part.get("dtype") or part.get("torch_dtype")) if isinstance(part, dict) else None
        if found in DTYPES:
            return found
        if found:
            raise ConfigError(f"{directory}/config.json says dtype {found!r}: set model.dtype to {', '.join(DTYPES)}")
    raise ConfigError(f"{directory}/config.json says no dtype: set model.dtype to {', '.join(DTYPES)}")


def is_quantized(directory: Path) -> bool:
    """Whether the checkpoint holds integers that transformers unpacks, as an exported one does."""
    return "quantization_config" in read_json(directory / "config.json")


def check_group_size(directory: Path, linears: str, group_size: int | None) -> None:
    """Refuse a group size that does not divide the input channels of every quantized linear.

    Raises:
        ConfigError: it does not, or the pattern matches no linear of the decoder; names the linears.
        ModelError: unknown architecture, or files that cannot be read.
    """
    layers = "|".join(map(re.escape, architecture_of(model_type(directory)).stored_layers))
    pattern = re.compile(rf"(?:{layers})\.\d+\.(?P<linear>{linears})\.weight")
    matches = ((pattern.fullmatch(name), shape) for name, shape in tensor_shapes(directory).items())
    columns = {match["linear"]: shape[-1] for match, shape in matches if match}
    if not columns:
        raise ConfigError(f"quant.linears={linears!r} matches no linear of the decoder blocks in {directory}")
    if group_size is None:
        return
    refused = {name: width for name, width in columns.items() if width % group_size}
    if refused:
        listed = ", ".join(f"{name} ({width} input channels)" for name, width in sorted(refused.items()))
        fitting = [g for g in (32, 64, 96, 128, 192, 256) if all(width % g == 0 for width in columns.values())]
        raise ConfigError(
            f"quant.weights.group_size={group_size} does not divide the input channels of {listed}; "
            f"sizes that do: {', '.join(map(str, fitting)) or 'none of the usual ones'}, or null (one scale a row)"
        )
