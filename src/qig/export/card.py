"""The model card, written from the run record: nothing in it is typed in by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from qig.config.schema.evaluation import WHERE
from qig.errors import QigError
from qig.export.loading_notes import loading
from qig.export.sizes import sizes
from qig.export.source import Source
from qig.models.architectures import architecture_of
from qig.models.checkpoint import EMBEDDED, PACKAGED, model_type, repository
from qig.report.cells import METHODS, byte_size
from qig.report.comparison import Compared, comparison
from qig.report.records import Run, load_run
from qig.report.render import markdown

RECIPE = ("quant", "sensitivity", "equalization", "rounding")
CITATION = """\
```bibtex
@inproceedings{qig,
  title         = {Quantization-aware Integrated Gradients},
  booktitle     = {CVPR},
  year          = {2026},
  eprint        = {2603.17809},
  archiveprefix = {arXiv}
}
```"""


def model_card(source: Source, folder: Path, name: str, bits: int) -> str:
    """Markdown with the hub's front matter.

    ``folder`` holds the exported files, ``name`` is what it will be called, ``bits`` what a weight's container has.
    """
    run = source.run
    text_only = architecture_of(model_type(source.checkpoint)).text_only
    title = f"{run.model}, {run.setting}, {METHODS.get(run.method, run.method)}"
    sections = [
        _front_matter(run.config["model"]["path"], "text-generation" if text_only else "image-text-to-text"),
        f"# {title}",
        f"Integer weights of [QIG](https://arxiv.org/abs/2603.17809)'s quantization framework, version "
        f"{run.record['environment']['packages']['qig']}, run `{run.id}`, in the compressed-tensors format. The "
        f"decoder's linear layers are quantized; equalization is folded into norms and weights; everything else is "
        f"the checkpoint's, as it was.",
        *_widened(source.quant["weights"]["bits"], bits),
        *_outliers(run),
        "## Recipe",
        _yaml({part: run.config[part] for part in RECIPE}),
        "## Calibration",
        _calibration(run),
        "## Results",
        markdown(comparison([_beside_baselines(run)])).strip(),
        _evaluated(run.record["versions"]),
        "## Size",
        _size_table(source, folder),
        "## Loading",
        loading(source.quant, run.config["model"]["dtype"], name, text_only, bits),
        "## Citation",
        CITATION,
    ]
    return "\n\n".join(sections) + "\n"


def _evaluated(versions: dict[str, str]) -> str:
    asked = ", ".join(f"{name} {version}" for name, version in versions.items()) or "running text"
    return f"Evaluated, as the fake-quantized model, with {asked}."


def _front_matter(path: str, pipeline: str) -> str:
    values: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": pipeline}
    if not path.startswith((EMBEDDED, PACKAGED)) and not Path(path).expanduser().exists():
        values["base_model"] = repository(path)[0]
        values["base_model_relation"] = "quantized"
    values["tags"] = ["compressed-tensors", "quantization", "qig"]
    return f"---\n{OmegaConf.to_yaml(OmegaConf.create(values))}---"


def _widened(integers: int, container: int) -> list[str]:
    if integers == container:
        return []
    return [
        f"**Widened**: the integers use {integers} bits and are stored in {container} (`num_bits`), for which more "
        f"runtimes have kernels. Integers, zero points and scales are those of the {integers}-bit export, and the "
        f"weights that they stand for are bit by bit the same."
    ]


def _outliers(run: Run) -> list[str]:
    if run.outlier_sigma == 0:
        return []
    return [
        f"**Synthetic outliers** (sigma = {run.outlier_sigma:g}), which leave the 16-bit model's function as it is, "
        f"were put into the model before it was quantized, and are part of these weights."
    ]


def _calibration(run: Run) -> str:
    calibration = run.record["stages"]["calibration"]
    if not calibration or not calibration["samples"]:
        return "None: the method needs no data."
    samples = f"{len(calibration['samples'])} samples, SHA-256 of what the model was shown `{calibration['sha256']}`."
    return f"{samples}\n\n{_yaml({'calibration': run.config['calibration']})}"


def _beside_baselines(run: Run) -> Compared:
    """The run, with the newest 16-bit and RTN runs of its checkpoint that were evaluated as it was, if there are."""
    found: dict[str, Run] = {}
    for folder in sorted((run.store / "runs").iterdir()):
        try:
            other = load_run(run.store, folder.name)
        except (QigError, OSError):
            continue  # unfinished or damaged: not this run's concern
        method = other.method
        alike = _conditions(other) == _conditions(run) and (
            method == "none" or (method == "rtn" and other.config["quant"] == run.config["quant"])
        )
        if alike and (method not in found or other.record["created"] > found[method].record["created"]):
            found[method] = other
    return Compared(run, found.get("none"), found.get("rtn"))


def _conditions(run: Run) -> dict[str, Any]:
    """What decides a baseline's answers, and must be the same. Calibration and its seed do not."""
    record, config = run.record, run.config
    # Of a text the hash below says all; where it lies decides nothing.
    evaluation = {key: value for key, value in config["evaluation"].items() if key not in (*WHERE, "text")}
    return {
        "checkpoint": record["checkpoint"]["sha256"],
        "model": {key: value for key, value in config["model"].items() if key not in ("name", "path")},
        "evaluation": evaluation,
        "documents": dict(run.documents),
        "threads": config["threads"],
        **{key: record["environment"][key] for key in ("device", "packages")},
    }


def _size_table(source: Source, folder: Path) -> str:
    rows = ["| bytes on disk | 16 bit | here | ratio |", "|:--|--:|--:|--:|"]
    rows += [
        f"| {what} | {byte_size(size.sixteen_bit)} | {byte_size(size.stored)} | {size.ratio:.3f} |"
        for what, size in sizes(folder, source.checkpoint).items()
    ]
    return "\n".join(rows)


def _yaml(values: dict[str, Any]) -> str:
    return f"```yaml\n{OmegaConf.to_yaml(OmegaConf.create(values))}```"
