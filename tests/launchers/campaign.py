"""``make launchers``: a sweep of 24 real runs on every launcher, two of which must fail at first.

The checkpoint of two jobs has no usable tokenizer at the first start and has one at the second. What must hold: 22 done
and 2 failed, exit status 1 (one of the 22 is a baseline of the others, and may be cached); then 2 done and 22 cached,
exit status 0; and from every launcher the same bits.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil

import qig
from qig.models.tiny import checkpoint_dir
from qig.store.files import sha256, write_text

LAUNCHERS = {
    "basic": [],
    "joblib": ["hydra.launcher.n_jobs=2"],
    "submitit_local": ["hydra.launcher.parallelism=2"],
    "submitit_slurm": ["hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=30"],
    "ray": ["hydra.launcher.ray.init.num_cpus=2"],
}
COMMON = ["model=hf", "model.name=tiny", "model.dtype=float32", "method=rtn", "evaluation.limit=4",
          "evaluation.nll=false", "evaluation.max_empty_share=1", "tracking=none", "threads=1"]  # fmt: skip


def main() -> int:
    """Exit status 1 if something did not hold."""
    parser = argparse.ArgumentParser(prog="launchers.campaign", description=__doc__)
    parser.add_argument("--to", type=Path, default=Path("results"), help="folder of launchers.md (default: results)")
    parser.add_argument("--work", type=Path, default=Path("outputs/launchers"), help="emptied (default: %(default)s)")
    parser.add_argument("--only", nargs="*", choices=LAUNCHERS, help="only these (default: all that are there)")
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    rows, bits, held = [], {}, True
    for name in options.only or LAUNCHERS:
        if name == "submitit_slurm" and shutil.which("sbatch") is None:
            rows.append((name, "no SLURM on this machine", "", "", ""))
            continue
        print(f"== {name}", flush=True)
        began = time.monotonic()
        folder = (options.work / name).absolute()
        shutil.copytree(checkpoint_dir("tiny_internvl"), folder / "late")
        (folder / "late" / "tokenizer.json").write_text("{}")  # nothing that is refused before jobs are launched
        first = start(folder, name)
        shutil.copy(checkpoint_dir("tiny_internvl") / "tokenizer.json", folder / "late")
        second = start(folder, name)
        bits[name] = answers(folder / "store")
        same = bits[name] == next(iter(bits.values()))
        held &= first[0]["failed"] == 2 and first[0]["done"] >= 21 and first[1] == 1
        held &= second == ({"done": 2, "cached": 22}, 0) and same
        rows.append((name, said(first), said(second), "yes" if same else "NO", f"{time.monotonic() - began:.0f} s"))
        print(*rows[-1], sep=" | ", flush=True)
    write_text(options.to / "launchers.md", text(rows))
    print("everything held" if held else "something did NOT hold")
    return int(not held)


def start(folder: Path, launcher: str) -> tuple[dict[str, int], int]:
    """The sweep's outcomes by number, and its exit status."""
    folder.mkdir(parents=True, exist_ok=True)
    there, late = checkpoint_dir("tiny_qwen2_vl"), folder / "late"
    arms = {
        "many": f"model.path={there} quant.weights.bits=2,3,4,5,6,7,8 quant.weights.group_size=32,64,128",
        "plain": f"model.path={there} method=none quant=fp16",
        "late": f"model.path={late} quant.weights.bits=3,4",
    }
    places = [f"store={folder / 'store'}", f"hydra.sweep.dir={folder / 'out'}"]
    words = [f'+hydra.sweeper.arms.{name}="{arm}"' for name, arm in arms.items()]
    launch = [f"hydra/launcher={launcher}", *LAUNCHERS[launcher]]
    command = [sys.executable, "-m", "qig", "-m", *COMMON, *places, *words, *launch]
    environment = os.environ | {"PYTHONPATH": str(Path(qig.__file__).parents[1])}
    with (folder / "log").open("a") as log:
        status = subprocess.run(command, env=environment, stdout=log, stderr=log).returncode
    with (folder / "out" / "jobs.csv").open() as stream:
        return dict(Counter(row["outcome"] for row in csv.DictReader(stream))), status


def answers(store: Path) -> dict[str, str]:
    """Evaluation to the hash of its samples: equal keys must have equal answers, wherever they were computed."""
    return {file.parent.name: sha256(file) for file in sorted(store.glob("evaluation/*/samples.jsonl"))}


def said(found: tuple[dict[str, int], int]) -> str:
    counts, status = found
    return ", ".join(f"{counts[name]} {name}" for name in ("done", "cached", "failed") if name in counts) + (
        f"; exit status {status}"
    )


def text(rows: list[tuple[str, ...]]) -> str:
    lines = ["# Launchers", "", "24 runs, two of which have no tokenizer at the first start (`make launchers`).", "",
             "| launcher | first start | second start | same answers as the first launcher | time of both |",
             "|---|---|---|---|---|"]  # fmt: skip
    lines += [f"| `{row[0]}` | {' | '.join(row[1:])} |" for row in rows]
    memory = psutil.virtual_memory().total / 2**30
    return "\n".join([*lines, "", f"On {os.cpu_count()} cores with {memory:.0f} GiB.", ""])


if __name__ == "__main__":
    sys.exit(main())
