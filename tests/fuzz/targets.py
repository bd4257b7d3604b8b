"""What is fuzzed: for each target its inputs, and what is done with one of them in a folder of its own."""

from __future__ import annotations

import contextlib
import io
import json
import math
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from fuzz.mutations import LEAVES, NAMES, NUMBERS, TEXTS, VALUES, damaged, documents
from fuzz.outcome import Defect


@dataclass(frozen=True)
class Target:
    """``use(given, folder)`` raises what a user would see; ``folder`` is empty for each input."""

    title: str
    inputs: Callable[[], st.SearchStrategy[Any]]
    use: Callable[[Any, Path], None]


# Configuration


@cache
def defaults() -> dict[str, Any]:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(composed([]))


@contextlib.contextmanager
def hydra_folder() -> Iterator[None]:
    """Hydra as the command sets it up."""
    from hydra import initialize_config_dir

    from qig.config import conf_dir, register

    register()
    with initialize_config_dir(config_dir=str(conf_dir())):
        yield


def composed(overrides: list[str]):
    from hydra import compose

    return compose("config", overrides=overrides, return_hydra_config=True)


def configure(overrides: list[str]) -> None:
    """All that a command does with a configuration before it loads anything."""
    from qig.config import identity
    from qig.config.composed import typed_job
    from qig.config.validation import resolve
    from qig.secrets import refuse_in_config, refuse_in_words

    refuse_in_words(overrides)
    config = typed_job(composed(overrides))
    refuse_in_config(asdict(config))
    config = resolve(config)
    model = identity.model_identity(config, "0" * 64, "cpu")
    identity.evaluation_key(config, model, identity.quantized_key(config, model, "0" * 64))
    if not all(map(math.isfinite, floats(asdict(config)))):
        raise Defect("a number that is not finite is accepted")


def floats(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from floats(inner)
    elif isinstance(value, float):
        yield value


def dotted(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from dotted(value, f"{prefix}{key}.")
        if prefix + key != "hydra":
            yield prefix + key


def overrides() -> st.SearchStrategy[list[str]]:
    from qig.config import conf_dir

    keys = sorted(key for key in dotted(defaults()) if not key.startswith("hydra"))
    groups = {path.name: sorted(file.stem for file in path.glob("*.yaml")) for path in conf_dir().iterdir()}
    groups = {name: files for name, files in groups.items() if files}
    words = st.sampled_from([
        "null", "true", "nan", "inf", "-inf", "[]", "{}", "[1,2", "{a:1}", "'", '"', "${oc.env:HOME}", "${seed}", "${",
        "${model}", "${oc.decode:'{'}", "???", "1e400", "0x10", "(a+)+$", "(?P<x", "a{99999999999}", "[" * 200, "1,2",
        "choice(1,2)", "range(1,3)", "sort(3,2)", "\\", "a=b", "$$", "auto", "-1", "0", "1e-320", "9" * 40, "2", "0.5",
    ])  # fmt: skip
    text = st.one_of(words, words, NUMBERS.map(str), TEXTS, st.sampled_from(NAMES))
    value = st.tuples(st.sampled_from(["", "", "", "+", "++", "~"]), st.sampled_from(keys), text).map(
        lambda parts: f"{parts[0]}{parts[1]}={parts[2]}"
    )
    choice = st.sampled_from(sorted(groups)).flatmap(
        lambda group: st.one_of(st.sampled_from(groups[group]), st.sampled_from(groups[group]), text).map(
            lambda name: f"{group}={name}"
        )
    )
    return st.lists(st.one_of(value, value, choice, choice, st.text(max_size=20)), min_size=1, max_size=3)


def use_overrides(given: list[str], folder: Path) -> None:
    configure(given)


def experiments() -> st.SearchStrategy[bytes]:
    from qig.config import conf_dir

    head = b"# @package _global_\n"
    known = {key: value for key, value in defaults().items() if key != "hydra"}
    nested = st.sampled_from(sorted(known)).flatmap(
        lambda key: st.one_of(
            st.tuples(st.just(key), VALUES),
            st.tuples(
                st.just(key),
                st.dictionaries(st.sampled_from(sorted(known[key])), st.one_of(LEAVES, VALUES), max_size=3),
            )
            if isinstance(known[key], dict)
            else st.tuples(st.just(key), LEAVES),
        )
    )
    as_yaml = st.lists(nested, min_size=1, max_size=2).map(lambda parts: head + json.dumps(dict(parts)).encode())
    files = [path.read_bytes() for path in sorted(conf_dir().glob("experiment/*.yaml"))[:6]]
    tricks = [
        b"&a [*a]", b"a: &a [*a, *a]", b"!!python/object/apply:os.system ['true']", b"defaults: [/model: ../../x]",
        b"defaults: [{override /method: nothing}]", b"defaults: 3", b"? [1]\n: 2", b"model: !!binary aGk=", b"\t", b"%",
        b"seed: 1\nseed: 2", b"model: {path: ${model.path}}", b"seed: ${oc.env:NOTHING_OF_THIS_NAME}", b"---\n---\n",
    ]  # fmt: skip
    return st.one_of(as_yaml, as_yaml, st.sampled_from([head + trick for trick in tricks]), st.binary(max_size=60),
                     *(damaged(file) for file in files))  # fmt: skip


def use_experiment(given: bytes, folder: Path) -> None:
    (folder / "experiment").mkdir()
    (folder / "experiment" / "fuzzed.yaml").write_bytes(given)
    configure([f"hydra.searchpath=[file://{folder}]", "+experiment=fuzzed"])


# Calibration data

RECORDS = [
    {"id": "a", "image": "coco/a.png", "conversations": [
        {"from": "human", "value": "<image>\ndescribe the image"}, {"from": "gpt", "value": "the image shows red"}]},
    {"id": "b", "image": ["coco/a.png", "coco/a.png"], "conversations": [
        {"from": "human", "value": "<image>\ncompare\n<image>"}, {"from": "gpt", "value": "red and blue"},
        {"from": "human", "value": "why ?"}, {"from": "gpt", "value": "the image shows seven"}]},
]  # fmt: skip
ROWS = [
    {"id": 1, "picture": "coco/a.png", "question": "what ?", "answers": ["red", "blue"]},
    {"id": 2, "picture": ["coco/a.png"], "question": None, "answers": "seven"},
]


def calibration() -> st.SearchStrategy[tuple[str, str, bytes]]:
    lines = b"\n".join(json.dumps(record).encode() for record in RECORDS)
    rows = b"\n".join(json.dumps(row).encode() for row in ROWS)
    sharegpt = st.tuples(st.just("sharegpt4v_coco"), st.just(".json"), documents(RECORDS))
    sharegpt_lines = st.tuples(st.just("sharegpt4v_coco"), st.just(".jsonl"), damaged(lines))
    hf = st.tuples(st.just("hf"), st.just(".json"), documents(ROWS))
    hf_lines = st.tuples(st.just("hf"), st.just(".jsonl"), damaged(rows))
    return st.one_of(sharegpt, sharegpt, hf, hf, sharegpt_lines, hf_lines)


@cache
def calibration_config(kind: str):
    from omegaconf import OmegaConf

    values = {
        "sharegpt4v_coco": ["calibration.image_prefix=null"],
        "hf": ["calibration.image_columns=[picture]", "calibration.prompt_column=question",
               "calibration.answer_column=answers", "calibration.id_column=id"],
    }  # fmt: skip
    bound = ["calibration.samples=1", "calibration.max_skipped_share=0.9", "calibration.path=x"]
    found = composed([f"calibration={kind}", "calibration.image_folder=y", *bound, *values[kind]])
    return OmegaConf.to_object(found.calibration)


@cache
def reader():
    """The processor of a model, and its image tokens: what follows the records."""
    from qig.models.tiny.processors import build_processor

    processor = build_processor("tiny_internvl")
    return processor, {processor.image_token_id}


def use_calibration(given: tuple[str, str, bytes], folder: Path) -> None:
    from dataclasses import replace

    from PIL import Image

    from qig.data.encoding import encode
    from qig.data.sets import check_available, content_hash, read
    from qig.errors import DataError

    kind, suffix, content = given
    file, images = folder / f"records{suffix}", folder / "images"
    (images / "coco").mkdir(parents=True)
    Image.new("RGB", (28, 28), (200, 10, 10)).save(images / "coco" / "a.png")
    file.write_bytes(content)
    config = replace(calibration_config(kind), path=str(file), image_folder=str(images))
    check_available(config)
    content_hash(config)
    corpus = read(config)
    for sample in corpus.samples:
        for picture in sample.images:
            if isinstance(picture, Path) and not picture.resolve().is_relative_to(images.resolve()):
                raise Defect("a picture outside of the folder")
        encode(sample, *reader())
    if corpus.skipped and not corpus.samples:
        raise DataError("; ".join(corpus.skipped.values()))


# Checkpoints

TENSORS = {"a": ("F32", [2, 3], 24), "model.b.weight": ("BF16", [4], 8), "c": ("I64", [], 8)}


def safetensors_bytes(header: bytes, length: int | None = None, data: bytes = bytes(40)) -> bytes:
    return struct.pack("<Q", (len(header) if length is None else length) & (2**64 - 1)) + header + data


def valid_header() -> dict[str, Any]:
    header, start = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape, size) in TENSORS.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + size]}
        start += size
    return header


def checkpoints() -> st.SearchStrategy[tuple[str, bytes]]:
    header = valid_header()
    whole = safetensors_bytes(json.dumps(header).encode())
    lengths = st.one_of(st.integers(0, 400), st.sampled_from([2**63, 2**64 - 1, 2**32]))
    weights = st.one_of(
        documents(header).map(safetensors_bytes),
        st.tuples(documents(header), lengths).map(lambda parts: safetensors_bytes(*parts)),
        damaged(whole),
    )
    index = {"metadata": {"total_size": 40}, "weight_map": dict.fromkeys(TENSORS, "model.safetensors")}
    config = {"model_type": "internvl", "text_config": {"dtype": "bfloat16"}, "dtype": "float32"}
    return st.one_of(
        st.tuples(st.just("model.safetensors"), weights),
        st.tuples(st.just("model.safetensors"), weights),
        st.tuples(st.just("model.safetensors.index.json"), documents(index)),
        st.tuples(st.just("config.json"), documents(config)),
    )


def use_checkpoint(given: tuple[str, bytes], folder: Path) -> None:
    from safetensors import safe_open

    from qig.models import checkpoint
    from qig.models.architectures import architecture_of
    from qig.models.files import tensor_shapes

    (folder / "model.safetensors").write_bytes(safetensors_bytes(json.dumps(valid_header()).encode()))
    (folder / "config.json").write_text('{"model_type": "internvl", "dtype": "float32"}')
    name, content = given
    (folder / name).write_bytes(content)
    directory = checkpoint.resolve(str(folder))
    architecture_of(checkpoint.model_type(directory))
    checkpoint.own_dtype(directory)
    checkpoint.is_quantized(directory)
    checkpoint.content_hash(directory)
    shapes = tensor_shapes(directory)
    with safe_open(folder / "model.safetensors", framework="pt") as tensors:  # what is accepted can be read
        for tensor, shape in shapes.items():
            if tuple(tensors.get_tensor(tensor).shape) != shape:
                raise Defect(f"{tensor} has another shape than its header says")


# Run records


@cache
def valid_store(root: Path) -> dict[str, bytes]:
    """The files of a job and of its store: a run with its baseline, by name."""
    from qig.store.files import write_manifest
    from report.fabricated import Store

    store = Store(root / "store")
    scores = ((1, 0, 1, 1), (0, 1, 1, 1))
    store.run("run1", scores=scores, created="2026-01-02T03:04:05+00:00")
    store.run("base", method="rtn", scores=scores)
    for folder in (root / "store").glob("*/*"):
        write_manifest(folder)
    (root / "run.json").write_text(
        json.dumps({"run": "run1", "baselines": {"rtn": "base"}, "store": "STORE", "cached": False})
    )
    (root / "job.json").write_text(json.dumps({"status": "completed", "overrides": ["method=qig"], "error": None}))
    return {str(file.relative_to(root)): file.read_bytes() for file in sorted(root.rglob("*")) if file.is_file()}


def records(root: Path) -> st.SearchStrategy[tuple[str, bytes]]:
    files = valid_store(root)
    parts = []
    for name, content in files.items():
        if name.endswith(".json"):
            weight = 4 if name.endswith("run1/record.json") else 1
            parts += [st.tuples(st.just(name), documents(json.loads(content)))] * weight
        elif name.endswith(".jsonl"):
            line = content.splitlines()[0]
            one = documents(json.loads(line)).map(lambda made, rest=content: made + b"\n" + rest)
            parts += [st.tuples(st.just(name), damaged(content)), st.tuples(st.just(name), one)]
        else:
            parts.append(st.tuples(st.just(name), damaged(content)))
    return st.one_of(parts)


def use_record(root: Path, given: tuple[str, bytes], folder: Path) -> None:
    """``qig-report FOLDER``, ``qig-runs``, and what a tracker is told of the run."""
    from qig.errors import StoreError
    from qig.report.__main__ import main
    from qig.report.records import load_run
    from qig.report.summaries import per_sample, search_curves, sensitivity_shares, sites, summary
    from qig.runs.__main__ import main as runs

    shutil.copytree(root, folder, dirs_exist_ok=True)
    name, content = given
    (folder / name).write_bytes(content)
    if name != "run.json":
        left = (folder / "run.json").read_text().replace("STORE", str(folder / "store"))
        (folder / "run.json").write_text(left)
    told, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(complained):
        status = main([str(folder), "--figures", "0", "--to", str(folder / "out")])
        for command in (["list"], ["show", "run1"], ["compare", "base", "run1"], ["verify"]):
            runs([*command, "--store", str(folder / "store")])
    if "Traceback" in told.getvalue() + complained.getvalue():
        raise Defect("a traceback is shown")
    half = [file.name for file in (folder / "out").rglob("*") if file.is_file() and file.name.startswith(".")]
    if half:
        raise Defect("a half-written file is left")
    if status or "note:" in told.getvalue():
        raise StoreError(complained.getvalue() or told.getvalue())
    run = load_run(folder / "store", "run1")
    for table in (sites, search_curves, per_sample, summary):
        table(run)
    if run.has_sensitivities:
        sensitivity_shares(run)


def targets(root: Path) -> dict[str, Target]:
    """All targets; ``root`` is a folder for what several inputs start from. What takes long to import is imported."""
    valid_store(root)
    reader()
    import_module("qig.report.closing")
    return {
        "overrides": Target("Hydra overrides", overrides, use_overrides),
        "experiments": Target("YAML files", experiments, use_experiment),
        "calibration": Target("calibration JSON and JSONL", calibration, use_calibration),
        "checkpoints": Target("safetensors headers, indices, config.json", checkpoints, use_checkpoint),
        "records": Target(
            "run records, samples, job files", lambda: records(root), lambda given, f: use_record(root, given, f)
        ),
    }
