"""The campaign: every target with many inputs from fixed seeds; ``make fuzz``.

An input is fine if it is accepted, or refused with one message. Anything else is a defect: a traceback, a hang, a
half-written file, a number that is not finite, a path that leaves its folder. Exit status 1 if there is one.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, Phase, given, seed, settings

from fuzz.outcome import Outcomes
from fuzz.targets import Target, hydra_folder, targets

INPUTS = {"overrides": 300, "experiments": 150, "calibration": 2500, "checkpoints": 5000, "records": 150}
GUIDED = {"calibration": 700, "checkpoints": 3000, "records": 60}


@dataclass(frozen=True)
class Result:
    title: str
    engine: str
    outcomes: Outcomes
    seconds: float


def fuzz(target: Target, inputs: int, number: int) -> Outcomes:
    """The outcomes of ``inputs`` inputs that hypothesis makes from the seed ``number``."""
    found = Outcomes()
    options = settings(
        max_examples=inputs, database=None, deadline=None, derandomize=False, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip

    def one(value: object) -> None:
        with TemporaryDirectory() as folder:
            found.of(value, lambda: target.use(value, Path(folder)))

    with hydra_folder():
        seed(number)(options(given(target.inputs())(one)))()
    return found


def guided(name: str, inputs: int, number: int) -> Outcomes | None:
    """The same, guided by coverage, in a process of its own; ``None`` where atheris is not installed."""
    with TemporaryDirectory() as folder:
        left = Path(folder) / "outcomes.json"
        done = subprocess.run(
            [sys.executable, "-m", "fuzz.guided", name, str(left), str(inputs), str(number)],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode == 3:
            return None
        if not left.is_file():
            raise RuntimeError(f"the guided fuzzer left nothing: {done.stderr[-2000:]}")
        return Outcomes(**json.loads(left.read_text()))


def markdown(results: list[Result], without: bool) -> str:
    total = sum(result.outcomes.inputs for result in results)
    defects = {kind: shown for result in results for kind, shown in result.outcomes.defects.items()}
    lines = [
        f"**{total:,} inputs, {len(defects)} kinds of defects**",
        "",
        "An input is fine if it is accepted, or refused with one message and nothing half-written.",
        "",
        "| what | engine | inputs | accepted | refused | defects | seconds |",
        "|:---|:---|---:|---:|---:|---:|---:|",
    ]
    for result in results:
        found = result.outcomes
        counts = [f"{n:,}" for n in (found.inputs, found.accepted, found.refused, len(found.defects))]
        lines.append(f"| {result.title} | {result.engine} | {' | '.join(counts)} | {result.seconds:.0f} |")
    if without:
        lines += ["", "Atheris is not installed here: nothing was guided by coverage."]
    for kind, shown in sorted(defects.items()):
        lines += ["", f"* `{kind}`: `{shown[:300]}`"]
    return "\n".join([*lines, "", "`make fuzz` makes this table anew."]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, help="folder for fuzz.md and fuzz.json (default: print only)")
    parser.add_argument("--share", type=float, default=1.0, help="of the inputs (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=sorted(INPUTS), default=sorted(INPUTS), metavar="TARGET")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="offline", QIG_CACHE="/nonexistent")
    results, without = [], False
    with TemporaryDirectory() as root:
        for name, target in targets(Path(root)).items():
            if name not in options.only:
                continue
            for engine, counts in (("hypothesis", INPUTS), ("atheris", GUIDED)):
                inputs = int(counts.get(name, 0) * options.share)
                if not inputs:
                    continue
                random.seed(options.seed)
                begun = time.perf_counter()
                plain = engine == "hypothesis"
                found = fuzz(target, inputs, options.seed) if plain else guided(name, inputs, options.seed)
                if found is None:
                    without = True
                    continue
                results.append(Result(target.title, engine, found, time.perf_counter() - begun))
                print(f"{name} ({engine}): {found.inputs} inputs, {len(found.defects)} defects", flush=True)
    text = markdown(results, without)
    print(text)
    if options.to:
        options.to.mkdir(parents=True, exist_ok=True)
        rows = [
            {"target": r.title, "engine": r.engine, "seconds": round(r.seconds, 1), "inputs": r.outcomes.inputs,
             "accepted": r.outcomes.accepted, "refused": r.outcomes.refused, "messages": dict(r.outcomes.messages),
             "defects": r.outcomes.defects}
            for r in results
        ]  # fmt: skip
        (options.to / "fuzz.md").write_text(text)
        (options.to / "fuzz.json").write_text(json.dumps({"seed": options.seed, "targets": rows}, indent=1) + "\n")
    return int(any(result.outcomes.defects for result in results))


if __name__ == "__main__":
    sys.exit(main())
