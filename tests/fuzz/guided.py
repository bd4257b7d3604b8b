"""One target under atheris, guided by the coverage of the package: ``python -m fuzz.guided TARGET RESULT INPUTS SEED``.

The first byte of an input says which kind of file the rest is. Exit status 3: atheris is not installed.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

if __name__ == "__main__":
    try:
        import atheris
    except ImportError:
        sys.exit(3)
    with atheris.instrument_imports(include=["qig.data", "qig.models.files", "qig.models.checkpoint", "qig.report"]):
        for module in ("data.encoding", "data.sets", "models.checkpoint", "report.__main__", "report.closing"):
            import_module(f"qig.{module}")

from fuzz.outcome import Outcomes
from fuzz.targets import RECORDS, ROWS, hydra_folder, safetensors_bytes, targets, valid_header, valid_store


def kinds(name: str, root: Path) -> list[tuple[tuple[str, ...], bytes]]:
    """What the first byte chooses from, each with a valid example of its bytes."""
    if name == "calibration":
        examples = {"sharegpt4v_coco": RECORDS, "hf": ROWS}
        return [
            ((kind, suffix), b"\n".join(lines) if suffix == ".jsonl" else json.dumps(given).encode())
            for kind, given in examples.items()
            for suffix in (".json", ".jsonl")
            for lines in [[json.dumps(record).encode() for record in given]]
        ]
    if name == "checkpoints":
        whole = safetensors_bytes(json.dumps(valid_header()).encode())
        index = b'{"metadata": {}, "weight_map": {"a": "model.safetensors"}}'
        return [
            (("model.safetensors",), whole),
            (("model.safetensors.index.json",), index),
            (("config.json",), b'{"model_type": "internvl", "text_config": {"dtype": "bfloat16"}}'),
        ]
    return [((file,), content) for file, content in valid_store(root).items()]


def main(name: str, result: Path, inputs: int, seed: int) -> None:
    found = Outcomes()
    logging.disable(logging.CRITICAL)
    with TemporaryDirectory() as root, TemporaryDirectory() as corpus, hydra_folder():
        target, choices = targets(Path(root))[name], kinds(name, Path(root))
        for number, (_, example) in enumerate(choices):
            (Path(corpus) / f"valid{number}").write_bytes(bytes([number]) + example)

        def one(data: bytes) -> None:
            kind, _ = choices[(data[0] if data else 0) % len(choices)]
            with TemporaryDirectory() as folder:
                found.of((*kind, data[1:]), lambda: target.use((*kind, data[1:]), Path(folder)))
            if found.inputs == inputs:
                result.write_text(json.dumps(vars(found)))
                os._exit(0)  # libFuzzer takes an orderly end for a crash

        options = [f"-seed={seed + 1}", "-max_len=4096", f"-artifact_prefix={corpus}/", corpus]
        atheris.Setup([sys.argv[0], *options], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
